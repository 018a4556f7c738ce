"""A file that cannot be written is said before the work: nothing is asked, started or computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.client_cli import vscan
from vscan.errors import InvalidArgument
from vscan_client.cli.outputs import check_apart, check_file, check_folder

NOBODY = ("--server", "127.0.0.1:1")  # where a question would end with 3
SCENE = Path(__file__).parents[3] / "docs" / "images" / "scene.png"


@pytest.mark.parametrize(
    "command",
    [
        ("show", SCENE, "what is it?", *NOBODY, "--out", "TAKEN"),
        ("show", SCENE, "what is it?", *NOBODY, "--out", "TAKEN/below"),
        ("show", SCENE, "what is it?", *NOBODY, "--out", "FOLDER"),  # where show.png is a folder
        ("study", "cls-attention", "--model", "/nowhere", "--out", "TAKEN"),
        ("tune", "--count", 1, "--out", "TAKEN"),
        ("bench", *NOBODY, "--plot", "FOLDER/show.png"),
        ("bench", *NOBODY, "--json", "FOLDER"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_a_path_that_cannot_be_is_said_first(command: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "TAKEN").write_text("")
    (tmp_path / "FOLDER" / "show.png").mkdir(parents=True)
    *words, last = map(str, command)
    ran = vscan(*words, tmp_path / last)
    assert (ran.code, ran.out) == (2, "")
    assert ran.one_line.startswith(f"vscan: {words[-1]}: {tmp_path}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["FOLDER", "TAKEN", "show.png"]


def test_looking_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("kept")
    check_file("--json", tmp_path / "there.json")
    check_file("--json", tmp_path / "new.json")
    check_folder("--out", tmp_path / "new" / "below", ["a.png"])
    check_folder("--out", tmp_path, ["there.json", "a.png"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"there.json": "kept"}


def test_one_file_for_two_things_is_refused(tmp_path: Path) -> None:
    check_apart([("--json", tmp_path / "a"), ("--plot", None), ("--plot", tmp_path / "b")])
    with pytest.raises(InvalidArgument, match=r"--plot: .*a is what --json writes too"):
        check_apart([("--json", tmp_path / "a"), ("--plot", tmp_path / "a")])
