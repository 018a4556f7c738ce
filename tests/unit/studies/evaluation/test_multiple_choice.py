"""How an option is found in an answer: MMBench's exact matching, ScienceQA's letters."""

import pytest

from studies.evaluation.multiple_choice import chosen_letter, lettered
from studies.evaluation.tasks.scienceqa import chosen_index

OPTIONS = {"A": "a red square", "B": "a circle", "C": "star"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),  # marks are blanks
        ("B.", "B"),
        ("The answer is C: star", "C"),  # one letter stands alone
        ("A or B", None),  # two do, and no text of an option is there
        ("A or B, the star", "C"),  # two do, so the texts are looked at
        ("b", None),  # letters are told by their case
        ("It is A Circle", "A"),  # the tool takes this A for the letter
        ("it is a CIRCLE", "B"),  # no letter; just one text, whatever the case
        ("a star in a circle", None),  # two texts
        ("I do not know", None),
        ("", None),
        ("Z", "Z"),
        ("Cannot determine the answer, maybe B", "Z"),  # a refusal goes before all
        ("D", None),  # there is no such option
    ],
)
def test_mmbench_finds_an_option_by_exact_matching(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("B", 1),
        (" B\n", 1),
        ("B. a circle", 1),
        ("B.", None),  # a blank is missing
        ("B) a circle", None),
        ("The answer is C.", 2),
        ("I think. The answer is C, star", 2),
        ("The answer is C\nsince it is", None),  # nothing on that line
        ("The answer is C", None),  # the rule wants something behind the letter
        ("The answer is A. The answer is B.", None),  # said twice
        ("D", None),  # there are three choices
        ("The answer is D.", None),
        ("a circle", None),
        ("b", None),
        ("AB", None),
        ("", None),
    ],
)
def test_scienceqa_takes_a_letter_as_llavas_script_does(answer: str, index: int | None) -> None:
    assert chosen_index(answer, 3) == index


def test_options_are_listed_a_line_each() -> None:
    assert lettered(["red", "blue"]) == "A. red\nB. blue"
