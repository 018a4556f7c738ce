"""The container files name what exists. They are not built here: that needs a Docker engine."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from scripts.kustomize import render
from scripts.protos import ROOT
from vscan.config import ServiceSettings

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SETTINGS: dict[str, type[ServiceSettings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}


def _instructions(path: Path) -> list[tuple[str, str]]:
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def _values(path: Path, instruction: str) -> list[str]:
    return [rest for name, rest in _instructions(path) if name == instruction]


def _copied(path: Path) -> set[str]:
    """What is taken from the build context."""
    copies = [words.split() for words in _values(path, "COPY") if not words.startswith("--from")]
    return {source for words in copies for source in words[:-1]}


def test_there_is_one_for_each_service() -> None:
    assert [path.name.partition(".")[0] for path in DOCKERFILES] == sorted(SETTINGS)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_everything_that_a_wheel_is_made_of_is_copied_in(path: Path) -> None:
    copied = _copied(path)
    assert all((ROOT / source).exists() for source in copied)
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    tops = {Path(folders.get(name, name)).parts[0] for name in PROJECT["tool"]["setuptools"]["packages"] if "." not in name}
    metadata = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert tops | metadata | {"constraints.txt"} == copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_it_installs_an_extra_that_exists(path: Path) -> None:
    extras = re.findall(r"'\.\[([a-z,]+)\]'", path.read_text())
    assert extras == ["serve"]
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_it_starts_a_service_that_exists_as_an_ordinary_user(path: Path) -> None:
    (entry,) = _values(path, "ENTRYPOINT")
    program, option, module = json.loads(entry)
    assert (program, option) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None
    name = module.removesuffix("_service")
    (exposed,) = _values(path, "EXPOSE")
    assert SETTINGS[name].model_fields["bind"].default.endswith(f":{exposed}")
    (user,) = _values(path, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_kubernetes_runs_its_image_as_its_user(path: Path) -> None:
    name = path.name.partition(".")[0]
    deployments = {o["metadata"]["name"]: o for o in render(ROOT / "k8s" / "base") if o["kind"] == "Deployment"}
    pod = deployments[name]["spec"]["template"]["spec"]
    (user,) = _values(path, "USER")
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert f"--tag vscan-{name} " in path.read_text()
    assert pod["containers"][0]["image"].startswith(f"vscan-{name}:")
