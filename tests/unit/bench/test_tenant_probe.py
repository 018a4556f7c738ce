"""How well times tell two kinds of look-ups apart."""

from __future__ import annotations

import random

import pytest

from bench.tenant_probe import Probe, auc, farthest


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1, 1], [1, 1], 0.5), ([1, 3], [2], 0.5), ([1, 2, 3], [2, 2], 0.5)],
)
def test_the_probability_that_one_is_larger(ones: list[float], others: list[float], expected: float) -> None:
    assert auc(ones, others) == pytest.approx(expected)


def test_it_is_that_of_all_pairs() -> None:
    draw = random.Random(1)
    ones, others = ([float(draw.randrange(20)) for _ in range(60)] for _ in "ab")
    counted = [(one > other) + 0.5 * (one == other) for one in ones for other in others]
    assert auc(ones, others) == pytest.approx(sum(counted) / len(counted))


def test_what_counts_is_how_far_from_a_half_and_not_of_ones_own() -> None:
    probes = [
        Probe("redis", "find", tenant, value, (1.0, 1.0))
        for tenant, value in [("prober", 0.51), ("prober", 0.4), ("owner", 1.0)]
    ]
    assert farthest(probes) == pytest.approx(0.6)
