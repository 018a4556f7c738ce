"""Values on the command lines: good ones are read, others are refused with what is allowed."""

import argparse

import pytest

from embedded_model.arguments import above_zero, at_least_one


def test_numbers_are_read() -> None:
    assert at_least_one("7") == 7
    assert above_zero("0.5") == 0.5


@pytest.mark.parametrize("text", ["0", "-3"])
def test_a_count_below_one_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        at_least_one(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_number_that_is_not_above_zero_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        above_zero(text)
