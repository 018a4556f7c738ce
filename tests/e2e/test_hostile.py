"""Hostile input of every kind against live services: each case ends as it must, and who comes next is answered as ever."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hostile.__main__ import run, table
from tests.hostile.case import CallCase, Case, Target
from tests.hostile.corpus import corpus


def half_of_each_family(cases: Sequence[Case]) -> list[Case]:
    """Always the same half; `make hostile` sends all, also many at once."""
    families = defaultdict[str, list[Case]](list)
    for case in cases:
        families[case.family].append(case)
    draw = random.Random(0)
    return [case for family in families.values() for case in draw.sample(family, (len(family) + 1) // 2)]


@pytest.mark.timeout(600)
async def test_nothing_hostile_crashes_holds_up_or_fills_a_service(tmp_path: Path) -> None:
    cases = half_of_each_family(corpus())
    results = await run(cases, tmp_path, at_once=1, seed=0)
    print(table(results))
    assert [f"{one.family}: {one.name}: {one.status} {one.field}: {one.fault}" for one in results if one.fault] == []
    assert len(results) == len(cases)


def test_the_corpus_holds_every_family_and_both_services() -> None:
    titles = [case.title for case in corpus()]
    assert len(titles) == len(set(titles)) >= 500
    assert len({case.family for case in corpus()}) >= 25
    assert {case.target for case in corpus() if isinstance(case, CallCase)} == set(Target)
