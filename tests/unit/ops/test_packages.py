"""Every package in the tree is declared, so that a wheel has it."""

import re
import tomllib

from scripts.protos import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = [
    "vscan",
    "client/vscan_client",
    "encoder_service",
    "decoder_service",
    "gateway_service",
    "page_service",
    "embedded_model",
    "studies",
]
# Training and evaluating the embedded model is work on the project, done in a clone.
NOT_SHIPPED = {"embedded_model.train", "embedded_model.evaluate"}
PIN = re.compile(r"^[a-z0-9-]+==([0-9]+!)?[0-9][0-9A-Za-z.]*$")


def test_declared_packages_are_those_in_the_tree() -> None:
    folders = [path.parent.relative_to(ROOT) for top in SHIPPED for path in (ROOT / top).rglob("__init__.py")]
    in_tree = {".".join(folder.parts).removeprefix("client.") for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == in_tree - NOT_SHIPPED


def test_the_base_install_needs_nothing_heavy() -> None:
    names = {re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0] for line in PROJECT["project"]["dependencies"]}
    assert names == {"grpcio", "protobuf", "googleapis-common-protos", "opentelemetry-api", "typer", "rich"}


def test_constraints_pin_every_requirement_that_is_named() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(PIN.match(pin) for pin in pins)
    assert pins == sorted(pins)
    project = PROJECT["project"]
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0].lower() for line in wanted} - {"vscan-serve"}
    assert names <= {pin.partition("==")[0] for pin in pins}


def test_a_release_is_named_in_the_changelog() -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "vscan/__init__.py").read_text())
    assert version
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()
