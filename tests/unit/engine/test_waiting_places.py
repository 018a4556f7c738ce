"""A full queue: who still gets a place, and whose."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from decoder_service.request import State
from decoder_service.waiting_places import has_place, who_gives_way
from tests.support.scheduling import Simulation, scheduler, sequence
from vscan.errors import ResourceExhausted


@pytest.mark.parametrize(
    ("counts", "tenant", "loser"),
    [
        ({"acme": 8}, "zoo", "acme"),
        ({"acme": 5, "zoo": 3}, "zoo", "acme"),
        ({"acme": 4, "zoo": 4}, "zoo", None),
        ({"acme": 5, "zoo": 4}, "zoo", None),  # it would only turn the two around
        ({"acme": 8}, "acme", None),
        ({"acme": 3, "bar": 3, "zoo": 2}, "new", "bar"),
        ({"acme": 1, "bar": 1}, "new", None),
        ({}, "new", None),
    ],
)
def test_who_has_most_gives_way_to_who_has_less(counts: dict[str, int], tenant: str, loser: str | None) -> None:
    assert who_gives_way(counts, tenant) == loser


def test_those_on_the_way_count() -> None:
    assert has_place({"acme": 6}, ["acme", "acme"], limit=8)
    assert not has_place({"acme": 6}, ["acme", "acme", "acme"], limit=8)
    assert has_place({"acme": 6}, ["acme", "acme", "zoo"], limit=8)
    assert has_place({"acme": 8}, ["zoo"] * 4, limit=8)
    assert not has_place({"acme": 8}, ["zoo"] * 5, limit=8)


def test_one_tenant_cannot_keep_the_others_out() -> None:
    run = Simulation(scheduler(max_running=1, max_waiting=8, pages=200))
    run.add(sequence("running", new=90, tenant="acme"))
    run.step()
    run.add(*(sequence(f"a{place}", tenant="acme") for place in range(8)))
    with pytest.raises(ResourceExhausted):
        run.own.check_room("acme")
    for place in range(4):
        run.own.check_room("zoo")
        run.add(sequence(f"z{place}", tenant="zoo"))
        assert run.own.waiting == 8
    for tenant in ("acme", "zoo"):
        with pytest.raises(ResourceExhausted) as refused:
            run.own.check_room(tenant)
        assert refused.value.retry_delay_ms >= 100
    # The youngest left, the oldest stayed.
    assert run.ended == {f"a{place}": State.FAILED for place in (4, 5, 6, 7)}


def test_what_ran_already_is_not_pushed_out_and_keeps_nobody_out() -> None:
    """A preempted request had its place in the batch: the bound is on those that never ran."""
    run = Simulation(scheduler(max_running=1, max_waiting=2, pages=200))
    old = sequence("old", new=90, tenant="acme")
    run.add(old)
    run.step()
    run.add(sequence("a", tenant="acme"))
    run.own._preempt(old)
    run.own.check_room("acme")
    run.add(sequence("b", tenant="acme"))
    run.own.check_room("zoo")
    run.add(sequence("z", tenant="zoo"))
    assert run.ended == {"b": State.FAILED}
    with pytest.raises(ResourceExhausted):
        run.own.check_room("zoo")


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds_whoever_comes(seed: int) -> None:
    """Several are accepted before any of them is added, while others begin and leave."""
    generator = random.Random(seed)
    run = Simulation(scheduler(max_running=2, max_waiting=6, pages=200))
    names = iter(range(10**6))
    for _ in range(60):
        coming: list[str] = []
        for _ in range(generator.randrange(6)):
            tenant = generator.choice("aaaabbc")
            try:
                run.own.check_room(tenant, coming)
            except ResourceExhausted:
                counts = run.own._queue.fresh
                assert sum(counts.values()) + len(coming) >= 6
            else:
                coming.append(tenant)
        if generator.random() < 0.5:
            run.step()
        waiting = [each for each in run.alive.values() if each.state is State.WAITING]
        if waiting and generator.random() < 0.3:
            run.end(generator.choice(waiting), State.CANCELLED)
        accepted = Counter(coming)
        for tenant in coming:
            run.add(sequence(f"r{next(names)}", 3, new=2, tenant=tenant))
            assert sum(run.own._queue.fresh.values()) <= 6
        assert accepted.total() == len(coming)
    run.run()
