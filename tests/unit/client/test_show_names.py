"""What files are called in what `vscan show` says."""

import os

import pytest

from vscan.errors import InvalidArgument
from vscan_client.cli.ask import files_and_question
from vscan_client.cli.show import _budgets, _names


def test_names_are_told_apart_and_stay_in_their_line() -> None:
    assert _names(["/far/a/x.png", "b/x.png", "/far/y.png"]) == ["a/x.png", "b/x.png", "y.png"]
    assert _names(["x.png", "x.png", "c/x.png"]) == ["x.png (1)", "x.png (2)", "c/x.png"]
    assert _names(["new\nline.png", os.fsdecode(b"caf\xe9.png")]) == ["new line.png", "caf\N{REPLACEMENT CHARACTER}.png"]


def test_a_question_longer_than_a_files_name_is_a_question() -> None:
    assert files_and_question(["a.png", "what? " * 1000], []) == (["a.png"], "what? " * 1000)


def test_without_reduction_there_is_one_column_and_no_budget() -> None:
    assert _budgets(None, "none") == {"none": None}
    with pytest.raises(InvalidArgument, match="33%, and --reduction none keeps all, limit one of the two"):
        _budgets(["33%"], "none")
