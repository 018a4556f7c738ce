"""Arrivals and popularity follow their laws, and a seed fixes them. Limits of chi-square tests are 99.9 % quantiles."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice, pairwise
from random import Random
from statistics import fmean
from typing import Any

import pytest

from studies.load.options import answer_length, mix
from studies.load.workload import Workload, images_of, poisson, popular
from vscan.errors import InvalidArgument

DRAWS = 8000


def chi_square(seen: Counter[Any], expected: dict[Any, float]) -> float:
    assert seen.keys() <= expected.keys()
    total = sum(seen.values())
    return sum((seen[key] - total * share) ** 2 / (total * share) for key, share in expected.items())


def test_gaps_between_arrivals_are_exponential() -> None:
    times = [0.0, *islice(poisson(5.0, Random(1)), DRAWS)]
    gaps = [after - before for before, after in pairwise(times)]
    # The mean of 8000 exponential gaps of mean 0.2 s has a standard deviation of 0.2 / √8000 = 0.0022 s.
    assert fmean(gaps) == pytest.approx(0.2, abs=4 * 0.0022)
    quarters = Counter(min(3, int(4 * (1 - math.exp(-5.0 * gap)))) for gap in gaps)
    assert chi_square(quarters, dict.fromkeys(range(4), 0.25)) < 16.27  # 3 degrees of freedom


@pytest.mark.parametrize("zipf", [0.0, 1.0, 1.6])
def test_images_are_asked_about_by_their_rank(zipf: float) -> None:
    seen = Counter(image for (image,) in islice(popular(8, zipf, 1, Random(2)), DRAWS))
    whole = sum(1 / rank**zipf for rank in range(1, 9))
    assert chi_square(seen, {rank - 1: 1 / rank**zipf / whole for rank in range(1, 9)}) < 24.32  # 7


def test_several_images_of_a_question_are_drawn_one_after_the_other_without_putting_back() -> None:
    seen = Counter(islice(popular(3, 1.0, 2, Random(3)), DRAWS))
    weights = {0: 1.0, 1: 1 / 2, 2: 1 / 3}
    whole = sum(weights.values())
    law = {
        (first, second): weights[first] / whole * weights[second] / (whole - weights[first])
        for first in weights
        for second in weights
        if first != second
    }
    assert chi_square(seen, law) < 20.52  # 5


def test_the_same_seed_gives_the_same_requests_and_a_part_or_a_rate_changes_only_what_it_must() -> None:
    workload = Workload(requests=50, rate=10.0, images=5, images_per_question=2, seed=4)
    asks = workload.asks()
    assert asks == Workload(requests=50, rate=10.0, images=5, images_per_question=2, seed=4).asks()
    assert asks != workload.asks(1)
    faster = Workload(requests=50, rate=20.0, images=5, images_per_question=2, seed=4).asks()
    assert [(ask.images, ask.question) for ask in faster] == [(ask.images, ask.question) for ask in asks]
    assert [2 * (ask.due_s or 0.0) for ask in faster] == pytest.approx([ask.due_s for ask in asks])
    assert len({ask.question for ask in asks}) > 45
    assert all(ask.due_s is None for ask in Workload(requests=3).asks())


def test_new_images_never_come_twice_in_any_part() -> None:
    workload = Workload(requests=4, images_per_question=3, fresh=True)
    seen = [image for part in range(3) for ask in workload.asks(part) for image in ask.images]
    assert seen == list(range(36))
    assert workload.images_needed(3) == 36


def test_a_mix_has_every_combination_with_the_product_of_its_weights() -> None:
    styles, weights = mix([], ["64=3", "avg:11.1%"], ["last_token", "text_mean=0.5"], None)
    assert [(style.budget, style.rater) for style in styles] == [
        ("64", "last_token"),
        ("64", "text_mean"),
        ("avg:11.1%", "last_token"),
        ("avg:11.1%", "text_mean"),
    ]
    assert weights == (3.0, 1.5, 1.0, 0.5)
    seen = Counter(ask.style for ask in Workload(requests=DRAWS, mix=weights).asks())
    assert chi_square(seen, {style: weight / 6 for style, weight in enumerate(weights)}) < 16.27


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Workload(requests=0), "--requests: 0, limit 1 to 1,000,000"),
        (lambda: Workload(requests=1, rate=0.0), "--rate: 0, limit over 0"),
        (lambda: Workload(requests=1, zipf=-1.0), "--zipf: -1, limit 0 to 10"),
        (
            lambda: Workload(requests=1, images=2, images_per_question=3),
            "--images-per-question: 3, limit the 2 images there are",
        ),
        (lambda: mix([], ["64=x"], [], None), "--budget: 'x' is not a weight, limit VALUE or VALUE=WEIGHT"),
        (lambda: mix([], ["64=0"], [], None), "--budget: a weight of 0, limit over 0"),
        (lambda: mix([], [], ["best"], None), "rater: 'best', limit last_token"),
        (lambda: answer_length("0"), "--answer-tokens: '0', limit a number of tokens, or model"),
    ],
)
def test_what_cannot_be_is_named(make: Any, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert says in str(caught.value)


def test_what_warms_up_is_about_every_image_so_that_all_rounds_find_the_caches_alike() -> None:
    for rate in (None, 5.0):
        load = Workload(requests=10, images=12, rate=rate, zipf=3.0)
        asks, warming = load.asks(0), load.warming(0)
        assert warming[:10] == asks
        assert len(images_of(asks)) < 12 == len(images_of(warming))
        assert [ask.number for ask in warming] == list(range(len(warming)))
        dues = [ask.due_s for ask in warming if ask.due_s is not None]
        assert dues == sorted(dues)
        assert len(dues) == (0 if rate is None else len(warming))
    several = Workload(requests=10, images=31, images_per_question=2).warming(0)
    assert set(images_of(several)) == set(range(31))
    assert len(Workload(requests=10, images=1000).warming(0)) == 20
    new = Workload(requests=3, fresh=True)
    assert new.warming(2) == new.asks(2)
