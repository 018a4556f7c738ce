"""Tenants get alike, whatever they ask and whenever they come."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from decoder_service.request import State
from decoder_service.sequence import Sequence
from tests.support.scheduling import LAYOUT, Simulation, about, advance, scheduler, sequence
from vscan.errors import ResourceExhausted

Shape = Callable[[random.Random], tuple[int, int]]  # rows of a prompt, tokens of its answer

SHAPES: dict[str, Shape] = {
    "alike": lambda _: (12, 6),
    "long prompts": lambda _: (60, 2),
    "long answers": lambda _: (4, 30),
    "anything": lambda generator: (generator.randint(1, 60), generator.randint(1, 30)),
}


class Crowd:
    """Tenants that each keep some requests under way, of a shape of their own; a finished one is followed by the next."""

    def __init__(self, seed: int = 0, **limits: Any) -> None:
        self._generator = random.Random(seed)
        self._names = itertools.count()
        self._shapes: dict[str, Shape] = {}
        self.simulation = Simulation(
            scheduler(500, **({"max_running": 8, "max_waiting": 999, "max_step_rows": 64} | limits)),
            then=lambda ended: [self._request(ended.request.tenant)] if ended.request.tenant in self._shapes else [],
        )

    def come(self, tenant: str, count: int, shape: Shape) -> None:
        self._shapes[tenant] = shape
        self.simulation.add(*(self._request(tenant) for _ in range(count)))

    def go(self, tenant: str) -> None:
        """Asks nothing more."""
        del self._shapes[tenant]

    def work_of(self, steps: int) -> Counter[str]:
        """Rows x layers by tenant, in so many steps."""
        before = self.simulation.work.copy()
        for _ in range(steps):
            self.simulation.step()
        return self.simulation.work - before

    def _request(self, tenant: str) -> Sequence:
        rows, new = self._shapes[tenant](self._generator)
        return sequence(f"{tenant}{next(self._names)}", rows, new=new, tenant=tenant)


def assert_alike(work: Counter[str], *tenants: str) -> None:
    shares = [work[tenant] / sum(work[each] for each in tenants) for tenant in tenants]
    assert shares == pytest.approx([1 / len(tenants)] * len(tenants), abs=0.04)


def test_tenants_take_turns_and_priority_orders_ones_own() -> None:
    own = scheduler(max_running=1, max_waiting=9)
    waiting = [sequence("a", 20), sequence("b", 10), sequence("c", 10, priority=1), sequence("d", 10, tenant="zoo")]
    for one in waiting:
        own.add(one)
    order = []
    for _ in waiting:
        [name] = advance(own)
        order.append(name)
        own.remove(own._running[name], State.FINISHED)
    assert order == ["c", "d", "a", "b"]


def test_places_in_the_batch_go_in_turn() -> None:
    own = scheduler(pages=400, max_running=8, max_waiting=64)
    for place in range(16):
        own.add(sequence(f"a{place}", tenant="acme"))
    for place in range(16):
        own.add(sequence(f"z{place}", tenant="zoo"))
    assert Counter(name[0] for name in advance(own)) == {"a": 4, "z": 4}


@pytest.mark.parametrize("theirs", SHAPES)
@pytest.mark.parametrize("ours", SHAPES)
def test_two_that_always_ask_get_alike(ours: str, theirs: str) -> None:
    crowd = Crowd()
    crowd.come("acme", 12, SHAPES[ours])
    crowd.come("zoo", 12, SHAPES[theirs])
    assert_alike(crowd.work_of(600), "acme", "zoo")


@pytest.mark.parametrize("seed", range(4))
def test_time_away_earns_nothing_and_costs_nothing(seed: int) -> None:
    """Three tenants come and go at random, with few or many requests; from then on all of them always ask, and get alike."""
    generator = random.Random(seed)
    crowd = Crowd(seed)
    here: set[str] = set()
    for _ in range(30):
        tenant = generator.choice(["acme", "zoo", "bar"])
        if tenant in here:
            crowd.go(tenant)
        else:
            crowd.come(tenant, generator.choice([1, 1, 3, 12]), SHAPES[generator.choice(list(SHAPES))])
        here ^= {tenant}
        crowd.work_of(generator.choice([1, 10, 60]))
    for tenant in ("acme", "zoo", "bar"):
        crowd.come(tenant, 12, SHAPES["anything"])
    assert_alike(crowd.work_of(600), "acme", "zoo", "bar")


@pytest.mark.parametrize("sleeper", ["zoo", "accomplice"])
def test_a_small_request_kept_alive_earns_no_credit(sleeper: str) -> None:
    """Not for its tenant, and not for one that comes later."""
    crowd = Crowd(max_running=4)
    crowd.simulation.add(sequence("asleep", 1, new=2000, tenant=sleeper))
    crowd.come("acme", 12, SHAPES["long prompts"])
    crowd.work_of(600)
    crowd.come("zoo", 12, SHAPES["long prompts"])
    assert_alike(crowd.work_of(600), "acme", "zoo")


def test_who_asks_one_thing_at_a_time_is_not_forgiven_between_two() -> None:
    """Its prompts are long: it waits until the other one got as much."""
    crowd = Crowd(max_running=2)
    crowd.come("acme", 1, lambda _: (90, 1))
    crowd.come("zoo", 6, lambda _: (5, 1))
    work = crowd.work_of(600)
    assert work["acme"] <= 1.1 * work["zoo"]


def test_rows_behind_the_first_segment_are_paid_for_too() -> None:
    """Prompts that are found whole in segment 0 still run behind the pruning, here 40 rows in 2 layers each."""
    own = scheduler(pages=400, max_running=1, max_waiting=64)
    run = Simulation(own)
    run.add(about(b"K", "first", kept=30, new=1, tenant="acme"))
    run.run()
    run.add(*(about(b"K", f"a{place}", kept=30, new=1, tenant="acme") for place in range(9)))
    run.add(*(sequence(f"z{place}", 23, new=1, tenant="zoo") for place in range(9)))  # 23 rows in 4 layers
    order = []
    while run.alive:
        order += [name[0] for name in run.step()]
    assert Counter(order[:10]) == {"a": 5, "z": 5}


def test_what_a_preempted_request_runs_again_is_not_charged_to_its_tenant() -> None:
    own = scheduler(pages=400, max_running=2, max_waiting=9)
    victim = sequence("victim", 40, new=9, tenant="acme")
    own.add(victim)
    advance(own)
    before = own._queue.level(victim)
    own._preempt(victim)
    own._cache.drop_idle()
    assert advance(own) == {"victim": (41, 41)}
    assert own._queue.level(victim) == before + sum(segment.layers for segment in LAYOUT.segments)


def test_who_leaves_before_its_prompt_ran_pays_for_what_ran() -> None:
    own = scheduler(pages=400, max_running=2, max_waiting=9, max_step_rows=10)
    stays, leaves = sequence("stays", 5, tenant="acme"), sequence("leaves", 90, tenant="acme")
    own.add(stays)
    own.add(leaves)
    advance(own)
    own.remove(leaves, State.CANCELLED)
    assert own._queue.level(stays) == 10 * 4 + stays.owed


def test_nothing_is_kept_of_those_that_left() -> None:
    crowd = Crowd()
    for tenant in ("acme", "zoo"):
        crowd.come(tenant, 5, SHAPES["anything"])
    crowd.work_of(50)
    for tenant in ("acme", "zoo"):
        crowd.go(tenant)
    crowd.simulation.run()
    queue = crowd.simulation.own._queue
    assert (queue._tenants, queue._arrivals, queue.fresh, len(queue)) == ({}, {}, {}, 0)


def test_room_is_asked_for_while_the_queue_changes() -> None:
    """On another thread: it reads what is replaced as a whole, and gets no other answer than one that was once true."""
    own = scheduler(pages=400, max_running=1, max_waiting=1000)
    problems: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                own.check_room("acme", ["zoo"])
            except ResourceExhausted:
                continue
            except BaseException as error:
                problems.append(error)
                return

    switching = sys.getswitchinterval()
    asking = threading.Thread(target=ask)
    sys.setswitchinterval(1e-6)
    try:
        asking.start()
        for turn in range(20):
            come = [sequence(f"{turn} {place}", 1, tenant=f"t{place}") for place in range(50)]
            for each in come:
                own.add(each)
            for each in come:
                own.remove(each, State.CANCELLED)
    finally:
        over.set()
        asking.join()
        sys.setswitchinterval(switching)
    assert problems == []


def test_what_others_read_of_the_queue_is_never_changed() -> None:
    own = scheduler(max_waiting=9)
    own.add(sequence("a"))
    before = own._queue.fresh
    own.add(sequence("b"))
    own.add(sequence("c", tenant="zoo"))
    assert before == {"default": 1}
    assert own._queue.fresh == {"default": 2, "zoo": 1}
