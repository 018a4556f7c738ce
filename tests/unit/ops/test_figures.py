"""Every picture of README and docs is made by a command, which the page names near it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.protos import ROOT

# Each picture, and the words of the command line that makes it.
COMMANDS = {
    "kept.png": "vscan show",
    "show.png": "vscan show",
    "page.png": "vscan up --page",
    "cls-attention.png": "vscan study cls-attention",
    "self-attention.png": "vscan study self-attention",
    "position-bias.png": "vscan study position-bias",
    "layer-attention.png": "vscan study layer-attention",
    "convergence.png": "vscan study convergence",
    "tune.png": "vscan tune",
    "load.png": "vscan bench",
    "evaluation.png": "python -m embedded_model.evaluate",
    "encoder.png": "python -m bench.encoder",
    "cache.png": "python -m bench.cache",
}
_SHOWN = re.compile(r"!\[[^\]]+\]\((?:docs/)?images/([\w.-]+)\)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_picture_that_is_shown_has_a_command_and_is_there() -> None:
    shown = {name for page in PAGES for name in _SHOWN.findall(page.read_text())}
    assert shown == set(COMMANDS)
    assert [name for name in sorted(shown) if not (ROOT / "docs" / "images" / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_the_command_of_each_picture(page: Path) -> None:
    text = page.read_text()
    assert [name for name in _SHOWN.findall(text) if COMMANDS.get(name, "?") not in text] == []
