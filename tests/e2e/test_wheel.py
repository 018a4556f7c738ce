"""What a user gets from the wheel: nothing is lost on the way, the base is small, and the whole system runs from it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import psutil
import pytest

import vscan
from embedded_model.album import draw_album
from tests.support.redis_server import redis_server_program
from tests.support.wheel import PROJECT, ROOT, Environment, build_wheel, files_in_wheel, package_folder

PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
TOP_PACKAGES = [package for package in PACKAGES if "." not in package]
PRINT_PLACES = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
IS_THERE = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
STOP_SECONDS = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install vscan-serve`."""
    return Environment(tmp_path_factory.mktemp("base") / "venv", wheel)


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install vscan-serve[serve]`, on a machine that has a redis-server."""
    environment = Environment(tmp_path_factory.mktemp("serve") / "venv", wheel, extras=frozenset({"serve"}))
    environment.program("redis-server").symlink_to(redis_server_program())
    return environment


def _files_in_tree() -> set[str]:
    """The packages' files as a wheel names them: a package's own, and those of folders in it that are no packages (data)."""
    found = set()
    for package in PACKAGES:
        folder = ROOT / package_folder(package)
        inner = [path for path in folder.iterdir() if path.is_dir() and not (path / "__init__.py").exists()]
        data = [path for path in inner if path.name != "__pycache__"]
        files = [*folder.iterdir(), *(path for directory in data for path in directory.rglob("*"))]
        found |= {f"{package.replace('.', '/')}/{path.relative_to(folder)}" for path in files if path.is_file()}
    return found


def test_the_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    assert files_in_wheel(wheel) == _files_in_tree()
    assert {f"embedded_model/checkpoint/{name}" for name in ("model.safetensors", "LICENSE", "README.md")} <= files_in_wheel(
        wheel
    )


def test_the_wheel_carries_its_licence_and_says_what_it_is(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        information = [name for name in archive.namelist() if ".dist-info/" in name]
        (metadata,) = [archive.read(name).decode() for name in information if name.endswith("/METADATA")]
    assert any(name.endswith("licenses/LICENSE") for name in information)
    assert f"Name: {PROJECT['project']['name']}\nVersion: {vscan.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0" in metadata


def test_the_base_has_the_sdk_and_the_command_and_nothing_heavy(base: Environment, tmp_path: Path) -> None:
    (place,) = base.run("python", "-c", PRINT_PLACES, "vscan_client", cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(base.libraries)
    heavy = ["torch", "numpy", "transformers", "redis", "PIL", "opentelemetry.sdk"]
    assert base.run("python", "-c", IS_THERE, *heavy, "grpc", cwd=tmp_path) == "['grpc']\n"
    assert base.run("vscan", "--version", cwd=tmp_path).strip() == vscan.__version__
    assert "cls-attention" in base.run("vscan", "study", "--list", cwd=tmp_path)


@pytest.mark.parametrize("command", [["up"], ["study", "cls-attention"]])
def test_the_base_says_what_serving_needs(base: Environment, tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [base.program("vscan"), *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "vscan-serve[serve]" in line


@pytest.fixture
def running(serving: Environment, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`vscan up` in a directory that has nothing to do with the tree."""
    command = [str(serving.program("vscan")), "up", "--decoder", "127.0.0.1:0", "--encoder", "127.0.0.1:0", "--logs", "logs"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=serving.variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _decoder_address(process: subprocess.Popen[str]) -> str:
    """Reads what `vscan up` says until it says where the decoder is."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.match(r" +decoder +(\S+)$", line):
            return found[1]
    raise AssertionError(f"vscan up ended: {''.join(said)}")


def test_the_whole_system_runs_from_the_wheel(serving: Environment, running: subprocess.Popen[str], tmp_path: Path) -> None:
    places = serving.run("python", "-c", PRINT_PLACES, *TOP_PACKAGES, cwd=tmp_path).splitlines()
    assert [place for place in places if not Path(place).is_relative_to(serving.libraries)] == []

    (picture,) = draw_album(11, pictures=1, questions=1)
    (tmp_path / "picture.png").write_bytes(picture.png())
    ask = ["ask", "picture.png", picture.questions[0].text, "--json", "--server", _decoder_address(running)]
    cold, repeated = (json.loads(serving.run("vscan", *ask, cwd=tmp_path)) for _ in range(2))
    assert cold["text"] == repeated["text"] != ""
    assert [answer["images"][0]["place"] for answer in (cold, repeated)] == ["encoded", "memory"]
    assert cold["usage"]["visual_tokens"] < cold["usage"]["visual_tokens_unreduced"]

    children = psutil.Process(running.pid).children(recursive=True)
    programs = {Path(child.cmdline()[0]).parent for child in children}
    assert len(children) == 3  # Redis, encoder, decoder
    assert serving.folder / "bin" in programs
    running.send_signal(signal.SIGTERM)
    assert running.wait(STOP_SECONDS) == 0
    _, left = psutil.wait_procs(children, timeout=STOP_SECONDS)
    assert left == []
