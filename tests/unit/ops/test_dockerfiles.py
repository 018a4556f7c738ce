"""The container files name what exists, and differ in their names alone. What they build is tested in `tests/system`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

import vscan
from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from page_service.config import PageSettings
from scripts.protos import ROOT
from tests.support.client_cli import vscan as run_vscan
from tests.support.images.build import check_understood
from tests.support.images.context import DockerIgnore
from tests.support.images.dockerfile import Stage, parse
from tests.support.manifests.rendering import rendered
from vscan.config import ServiceSettings, load_settings, variable_name
from vscan.rpc.readiness import LIVENESS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS: dict[str, type[ServiceSettings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
IMAGES = (*SETTINGS, "gateway")  # the last has the page too
# gRPC, health, metrics: by default, and as the pages say.
PORTS = {"encoder": ("7071", "7073", "9465"), "decoder": ("7070", "7072", "9464")}
# What the files may differ in, one by one.
_OTHER = {
    "encoder_service": "decoder_service",
    "vscan-encoder": "vscan-decoder",
    "The vision encoder of": "The language model of",
    "VSCAN_ENCODER_": "VSCAN_DECODER_",
    **dict(zip(PORTS["encoder"], PORTS["decoder"], strict=True)),
}


def _text(name: str) -> str:
    return (ROOT / "docker" / f"{name}.Dockerfile").read_text()


def _final(name: str) -> Stage:
    return parse(_text(name))[-1]


def _words(name: str, instruction: str) -> tuple[str, ...]:
    found = _final(name).last(instruction)
    assert found is not None
    return found.words


def _json(name: str, instruction: str) -> list[str]:
    found = _final(name).last(instruction)
    assert found is not None
    return list(json.loads(found.text[found.text.index("[") :]))


def _copied(name: str) -> list[str]:
    """What is taken from the build context."""
    copies = [one for stage in parse(_text(name)) for one in stage.instructions if one.name == "COPY"]
    return [source for one in copies if not one.text.startswith("--from") for source in one.words[:-1]]


def test_there_is_one_for_each_service_and_one_for_their_clients() -> None:
    assert {path.name.partition(".")[0] for path in (ROOT / "docker").glob("*.Dockerfile")} == {*SETTINGS, "gateway"}


def test_they_are_one_file_with_two_names() -> None:
    (shared, encoder), (other_shared, decoder) = (
        re.sub(r"^#.*\n", "", _text(name), flags=re.MULTILINE).rsplit("\nFROM base\n", 1) for name in ("encoder", "decoder")
    )
    assert shared == other_shared
    for one, other in _OTHER.items():
        assert one in encoder
        encoder = encoder.replace(one, other)
    assert encoder == decoder


def test_the_clients_image_begins_as_the_services_and_has_the_same_code() -> None:
    """So that what is done for one is there for all."""

    def part(name: str, begin: str, end: str) -> str:
        return _text(name).partition(begin)[2].partition(end)[0]

    for begin, end in (
        ("\nARG DEBIAN", "\n# What "),
        ("\nFROM tools AS application", "\nFROM base\n"),
        ("\nFROM base\n", "ENV "),
    ):
        assert part("gateway", begin, end) == part("encoder", begin, end) != ""


def test_the_clients_image_starts_a_gateway_and_can_start_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _json("gateway", "ENTRYPOINT") == ["tini", "--", "python", "-m", "gateway_service"]
    assert (_words("gateway", "USER"), _words("gateway", "STOPSIGNAL")) == (_words("encoder", "USER"), ("SIGTERM",))
    gateway, page, _ = _words("gateway", "EXPOSE")
    assert GatewaySettings.model_fields["bind"].default == f"127.0.0.1:{gateway}"
    assert PageSettings.model_fields["bind"].default == f"127.0.0.1:{page}"
    assert "serve" not in _text("gateway").partition("requirements.py gateway page")[2].partition("\n")[0]
    pod = next(
        one for one in rendered("base with gateway") if one["kind"] == "Deployment" and one["metadata"]["name"] == "gateway"
    )
    ports = {port["containerPort"] for port in pod["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {int(port) for port in _words("gateway", "EXPOSE")} - {int(page)}


@pytest.mark.parametrize(("certificate", "scheme"), [("", "http"), ("/run/tls.crt", "https")])
def test_the_clients_health_check_speaks_as_its_port_does(certificate: str, scheme: str, tmp_path: Path) -> None:
    shell, option, line = _json("gateway", "HEALTHCHECK")
    (tmp_path / "vscan").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "vscan").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VSCAN_GATEWAY_TLS_CERT_FILE": certificate}
    done = subprocess.run([shell, option, line], env=variables, check=True, capture_output=True, text=True)
    port = _words("gateway", "EXPOSE")[0]
    assert done.stdout.split() == ["health", f"{scheme}://127.0.0.1:{port}", "--service", LIVENESS]


@pytest.mark.parametrize("name", IMAGES)
def test_everything_that_a_wheel_is_made_of_is_copied_in_and_nothing_else(name: str) -> None:
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    tops = {Path(folders.get(name, name)).parts[0] for name in PROJECT["tool"]["setuptools"]["packages"] if "." not in name}
    metadata = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    wanted = tops | metadata | {"constraints.txt", "docker/requirements.py"}
    assert wanted == set(_copied(name))
    sent = list(DockerIgnore((ROOT / ".dockerignore").read_text()).files(ROOT))
    assert {path if path in wanted else path.partition("/")[0] for path in sent} == wanted
    assert not [path for path in sent if "__pycache__" in path]


def test_the_layer_of_requirements_is_all_of_the_extra() -> None:
    requirements = runpy.run_path(str(ROOT / "docker" / "requirements.py"))["requirements"]
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {*PROJECT["project"]["dependencies"], *extras["otel"], *extras["serve"]} - {"vscan-serve[otel]"}
    assert set(requirements(PROJECT["project"], "serve")) == wanted
    assert "requirements.py serve" in _text("encoder")
    of_clients = {*PROJECT["project"]["dependencies"], *extras["otel"], *extras["gateway"], *extras["page"]}
    assert set(requirements(PROJECT["project"], "gateway", "page")) == of_clients - {"vscan-serve[otel]"}


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_is_pinned_and_can_be_given_by_its_digest(name: str) -> None:
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", parse(_text(name))[0].base)
    digest = f"debian@sha256:{'0' * 64}"
    assert parse(_text(name), {"DEBIAN": digest})[0].base == digest


@pytest.mark.parametrize("name", SETTINGS)
def test_it_starts_a_service_that_exists_as_an_ordinary_user(name: str) -> None:
    *init, program, option, module = _json(name, "ENTRYPOINT")
    assert (*init, program, option) == ("tini", "--", "python", "-m")
    assert module == f"{name}_service"
    assert importlib.util.find_spec(f"{module}.__main__") is not None
    (user,) = _words(name, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert _words(name, "STOPSIGNAL") == ("SIGTERM",)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_opens_the_ports_that_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grpc, health, _ = PORTS[name]
    assert _words(name, "EXPOSE") == PORTS[name]
    assert str(SETTINGS[name].model_fields["bind"].default).endswith(f":{grpc}")
    environment = _final(name).environment
    assert environment[variable_name(SETTINGS[name], "health_bind")] == f"0.0.0.0:{health}"
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value) if variable.startswith("VSCAN_") else None
    load_settings(SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_its_health_check_is_a_command_that_exists(name: str) -> None:
    program, *arguments = _json(name, "HEALTHCHECK")
    assert program in PROJECT["project"]["scripts"]
    assert arguments == ["health", f"127.0.0.1:{PORTS[name][1]}", "--service", LIVENESS]
    assert run_vscan(arguments[0], "--help").code == 0


@pytest.mark.parametrize("name", IMAGES)
def test_its_labels_say_what_it_is(name: str) -> None:
    labels = dict(word.split("=", 1) for word in _words(name, "LABEL"))
    of_image = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert of_image["title"] == f"vscan-{name}"
    assert of_image["version"] == vscan.__version__
    assert of_image["licenses"] == PROJECT["project"]["license"]


@pytest.mark.parametrize("name", IMAGES)
def test_kubernetes_runs_its_image_as_its_user(name: str) -> None:
    deployments = {o["metadata"]["name"]: o for o in rendered("base with gateway") if o["kind"] == "Deployment"}
    pod = deployments[name]["spec"]["template"]["spec"]
    (user,) = _words(name, "USER")
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert f"--tag vscan-{name} " in _text(name)
    assert pod["containers"][0]["image"].startswith(f"vscan-{name}:")


def test_a_file_is_sent_by_the_last_pattern_that_matches_it() -> None:
    ignore = DockerIgnore("# all but\n**\n!kept\n!docs/*.md\n**/*.pyc\nkept/secret\n")
    kept = ["kept/a.py", "kept/deep/b", "docs/a.md"]
    left = ["other", "kept/a.pyc", "kept/deep/b.pyc", "kept/secret", "kept/secret/key", "docs/deep/a.md", "docs"]
    assert [path for path in kept + left if ignore.keeps(path)] == kept


def test_a_dockerfile_is_read_as_an_engine_reads_it() -> None:
    text = """
# a comment
ARG OF_ALL=base:1
FROM ${OF_ALL} AS one
ARG MORE=x
ENV A=1 \\
    B="two words"
RUN echo $A \\
    && true
FROM one
ENV C=$A
COPY --from=one $C /there
"""
    one, other = parse(text, {"OF_ALL": "base:2"})
    assert (one.base, one.name, other.base) == ("base:2", "one", "one")
    run, copy = one.last("RUN"), other.last("COPY")
    assert run is not None
    assert copy is not None
    assert dict(run.environment) == {"MORE": "x", "A": "1", "B": "two words"}
    assert other.environment == {"A": "1", "B": "two words", "C": "1"}
    assert copy.words == ("--from=one", "1", "/there")


@pytest.mark.parametrize("text", ["RUN true\n", "FROM a\nONBUILD RUN true\n"])
def test_what_is_not_understood_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"RUN before FROM|ONBUILD: not understood"):
        parse(text)


@pytest.mark.parametrize(
    "lines",
    [
        "COPY --chown=1:1 a a",
        "COPY a b",
        'COPY ["a", "b/"]',
        "USER 1:1\nRUN true",
        'RUN ["true"]',
        "RUN --mount=type=cache,target=/x true",
    ],
)
def test_what_would_be_built_otherwise_than_by_an_engine_is_refused(lines: str) -> None:
    (stage,) = parse(f"FROM a\n{lines}\n")
    with pytest.raises(ValueError, match=r"not understood|as root|a slash"):
        check_understood(stage)


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_in_the_files_is_built_otherwise_than_by_an_engine(name: str) -> None:
    for stage in parse(_text(name)):
        check_understood(stage)
