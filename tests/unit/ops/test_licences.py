"""What the services install may be shipped, and an advisory about a pinned version is noticed."""

from __future__ import annotations

import json
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest

from scripts import licences, osv


def test_everything_that_is_served_with_has_a_licence_on_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert licences.main() == 0, capsys.readouterr().out
    names = licences.closure(licences.PROJECT, licences.EXTRAS)
    assert {"vscan-serve", "torch", "grpcio", "pillow", "av", "redis", "opentelemetry-sdk"} <= set(names)
    assert not {"pytest", "ruff", "hypothesis"} & set(names)


def test_an_exception_is_for_something_that_is_installed() -> None:
    for name, licence in licences.EXCEPTIONS:
        assert licence in licences.licences(metadata.metadata(name))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "x: no licence"),
        ({"License-Expression": "MIT AND GPL-3.0-only"}, "x: GPL-3.0-only"),
        ({"License-Expression": "(Apache-2.0 WITH LLVM-exception) OR MIT"}, ""),
        ({"License": "Proprietary"}, "x: Proprietary"),
        ({"License": "a whole\ntext", "Classifier": "License :: OSI Approved :: MIT License"}, ""),
        (
            {"Classifier": "License :: OSI Approved :: AGPLv3"},
            "x: AGPLv3",
        ),
    ],
)
def test_a_licence_that_is_not_on_the_list_is_told(fields: dict[str, str], problem: str) -> None:
    about = Message()
    for name, value in fields.items():
        about[name] = value
    assert licences.problem_of("x", licences.licences(cast(Any, about))) == problem


@pytest.mark.parametrize(
    ("entry", "hit"),
    [
        ({"versions": ["1.5"]}, True),
        ({"versions": ["1.4"]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.6"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5"}]}]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1"}, {"last_affected": "1.5"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "1.4"}]}]}, True),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
    ],
)
def test_a_pinned_version_that_an_advisory_is_about_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, Any], hit: bool
) -> None:
    pinned, folder = tmp_path / "pins.txt", tmp_path / "export"
    pinned.write_text("# a comment\nSome_Thing==1.5\nother==2\n")
    folder.mkdir()
    assert osv.main([str(folder), "--pins", str(pinned)]) == 2  # an empty database says nothing
    advisory = {"id": "X-1", "summary": "bad", "affected": [{"package": {"name": "some.thing", "ecosystem": "PyPI"}, **entry}]}
    (folder / "X-1.json").write_text(json.dumps(advisory))
    assert osv.main([str(folder), "--pins", str(pinned)]) == int(hit)
    assert ("some.thing 1.5: X-1 bad" in capsys.readouterr().out) == hit
