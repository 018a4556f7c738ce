"""The normalisation of answers and VQA accuracy, against the official scripts' rules, worked out by hand."""

import pytest

from studies.evaluation.vqa_accuracy import evalai_answer, normalised, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat", "cat"),  # articles go, case goes
        ("an apple a day", "apple day"),
        ("three", "3"),  # numbers to ten become digits; `none` is one of them
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),  # apostrophes come back, and one of two that was left out
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("lets", "lets"),  # no rule for this one
        ("somebody'd", "somebodyd"),  # the official table has it the other way round
        ("red-box", "red box"),  # a mark between letters becomes a blank
        ("red- box", "red box"),  # one with a blank beside it goes
        ("two-storey, I think", "2 storey i think"),  # each mark by itself: the comma has a blank, the dash has none
        ("1,000", "1000"),  # a number with a comma: every mark goes without a blank
        ("1,000 red-box", "1000 redbox"),
        ("3.5 m.", "3.5 m"),  # a full stop stays before a digit only
        ("U.S.A.", "usa"),
        (" a\nb\tc ", "b c"),  # lines and tabs are blanks
        ("it's", "it's"),  # an apostrophe is no mark
        ("yes.", "yes"),
        ("", ""),
    ],
)
def test_an_answer_is_normalised_as_vqas_script_does(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes, it is", "yes it is"),  # the comma is gone before marks are looked at
        ("red,blue", "redblue"),  # where VQA's script would leave a blank
        ("1,000 red-box", "1000 red box"),  # so there is no number with a comma any more
        ("what?", "what"),
        ("Tom's", "tom 's"),  # a word of its own
        ("It's", "it 's"),
    ],
)
def test_evalais_processor_takes_commas_first(answer: str, expected: str) -> None:
    assert evalai_answer(answer) == expected


@pytest.mark.parametrize(
    ("matching", "expected"),
    [
        (0, 0.0),
        (1, 0.3),  # left out once: 0/3; nine times: 1/3 each; 9/3/10
        (2, 0.6),  # twice 1/3, eight times 2/3: (2/3 + 16/3) / 10
        (3, 0.9),  # three times 2/3, seven times 1: (2 + 7) / 10
        (4, 1.0),  # four times 3/3, six times 1
        (10, 1.0),
    ],
)
def test_accuracy_is_the_mean_over_all_but_one(matching: int, expected: float) -> None:
    others = ["red"] * matching + ["blue"] * (10 - matching)
    assert vqa_accuracy("red", others) == pytest.approx(expected)
