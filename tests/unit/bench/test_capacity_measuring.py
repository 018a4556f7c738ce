"""Measuring: what else the machine did stays out of means, and a load during which its speed changed is known as such."""

from __future__ import annotations

import pytest

from bench.capacity.measuring.questions import trimmed
from bench.capacity.validation.validate import is_steady


def test_one_slow_moment_does_not_move_a_mean_of_few_or_many() -> None:
    assert trimmed([1, 2, 3, 100]) == 2.5
    assert trimmed([10.0] * 8 + [900]) == 10
    assert trimmed([0, 0, *range(1, 17), 500, 900]) == sum(range(1, 17)) / 16
    assert trimmed([5, 7]) == 6
    assert trimmed([5]) == 5


@pytest.mark.parametrize(
    ("before", "after", "steady"), [(1.0, 1.1, True), (1.2, 1.0, False), (1.0, 1.2, False), (2.0, 2.1, True)]
)
def test_a_machine_is_steady_if_it_is_as_fast_after_a_load_as_before(before: float, after: float, steady: bool) -> None:
    assert is_steady(before, after) is steady
