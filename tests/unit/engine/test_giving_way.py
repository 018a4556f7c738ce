"""Whose pages are taken when an answer finds none."""

from __future__ import annotations

from decoder_service.request import State
from decoder_service.sequence import Sequence
from tests.support.scheduling import Simulation, scheduler, sequence


def first_to_give_way(*sequences: Sequence, pages: int) -> str:
    run = Simulation(scheduler(pages=pages, max_running=8, max_waiting=9, spare_blocks=0))
    for each in sequences:
        run.add(each)
        run.step()
    while not run.own.preemptions:
        run.step()
    [victim] = [name for name, each in run.alive.items() if each.state is State.WAITING]
    run.run()
    assert set(run.ended.values()) == {State.FINISHED}
    return victim


def test_among_equals_the_one_that_began_last() -> None:
    assert first_to_give_way(*(sequence(name, 4, new=20) for name in "abc"), pages=18) == "c"


def test_low_priority_gives_way_though_it_began_first() -> None:
    low, high, higher = (sequence(name, 4, new=20, priority=place) for place, name in enumerate(("low", "high", "higher")))
    assert first_to_give_way(low, high, higher, pages=18) == "low"


def test_between_tenants_the_one_that_got_most_whatever_its_priority() -> None:
    rich = [sequence(f"a{place}", 4, new=20, tenant="acme", priority=place) for place in range(2)]
    poor = sequence("z", 4, new=20, tenant="zoo", priority=-9)
    assert first_to_give_way(*rich, poor, pages=18) == "a0"
