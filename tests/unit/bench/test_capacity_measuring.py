"""Measuring: what else the machine did stays out of means, and a load during which its speed changed is known as such."""

from __future__ import annotations

import os
import time

import pytest

from bench.capacity.measuring.questions import trimmed
from bench.capacity.services import machine_busy_s
from bench.capacity.validation.compare import Compared
from bench.capacity.validation.validate import is_steady


def test_one_slow_moment_does_not_move_a_mean_of_few_or_many() -> None:
    assert trimmed([1, 2, 3, 100]) == 2.5
    assert trimmed([10.0] * 8 + [900]) == 10
    assert trimmed([0, 0, *range(1, 17), 500, 900]) == sum(range(1, 17)) / 16
    assert trimmed([5, 7]) == 6
    assert trimmed([5]) == 5


@pytest.mark.parametrize(
    ("before", "after", "foreign", "steady"),
    [
        ((1.0, 1.0), (1.1, 1.0), 0.0, True),
        ((1.2, 1.0), (1.0, 1.0), 0.0, False),
        ((1.0, 1.0), (1.0, 1.2), 0.0, False),
        ((2.0, 0.5), (2.1, 0.5), 0.1, True),
        ((1.0, 1.0), (1.0, 1.0), 0.2, False),
    ],
)
def test_a_machine_is_steady_if_it_is_as_fast_after_a_load_as_before_and_left_alone(
    before: tuple[float, float], after: tuple[float, float], foreign: float, steady: bool
) -> None:
    assert is_steady(before, after, foreign) is steady


def test_what_everybody_computes_is_no_less_than_what_this_process_does() -> None:
    cores = sorted(os.sched_getaffinity(0))
    own, everybody = time.process_time(), machine_busy_s(cores)
    while time.process_time() - own < 0.2:
        sum(range(1000))
    assert machine_busy_s(cores) - everybody >= 0.2 - 3 / os.sysconf("SC_CLK_TCK")
    assert machine_busy_s([]) == 0


@pytest.mark.parametrize(
    ("served", "simulated", "is_count", "met"),
    [
        (100, 115, False, True),
        (100, 116, False, False),
        (100, 84.9, False, False),
        (5, 2, False, False),
        (5, 2, True, True),
        (0, 4, True, True),
        (0, 5, True, False),
        (243, 280, True, False),
        (0, 0, False, True),
    ],
)
def test_a_quantity_is_met_within_15_percent_and_a_count_also_within_chance(
    served: float, simulated: float, is_count: bool, met: bool
) -> None:
    assert Compared("some", served, simulated, is_count).met is met
