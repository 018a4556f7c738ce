"""Every picture of README and docs is made by a command of `vscan`, which the page names near it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from PIL import Image

from scripts.protos import ROOT
from tests.support.client_cli import vscan
from vscan_client.cli.main import app

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
    "evaluation.png": "vscan bench --from bench/results/evaluation-cpu-2-cores.json",
    "encoder.png": "vscan bench --from bench/results/encoder-cpu-2-cores.json",
    "cache.png": "vscan bench --from bench/results/cache-cpu-2-cores.json",
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


def test_a_picture_is_made_by_a_command_of_vscan() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {line.split()[1] for line in COMMANDS.values()} <= known
    assert {line.split()[0] for line in COMMANDS.values()} == {"vscan"}


KEPT = {name: line.split()[-1] for name, line in COMMANDS.items() if "--from" in line}


@pytest.mark.parametrize("picture", KEPT)
def test_the_picture_of_a_kept_report_is_drawn_of_it(picture: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = tmp_path / picture
    ran = vscan("bench", "--from", ROOT / KEPT[picture], "--plot", drawn)
    assert (ran.code, ran.err) == (0, "")
    shown = ROOT / "docs" / "images" / picture
    with Image.open(drawn) as made, Image.open(shown) as there:
        assert made.size == there.size
