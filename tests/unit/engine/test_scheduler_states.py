"""The scheduler over its cache under whatever order of events: limits hold, everybody gets on, ends once, and nothing leaks."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.request import State
from decoder_service.sequence import Sequence
from tests.support import scheduling
from tests.support.scheduling import Simulation, about, scheduler, sequence
from vscan.errors import InvalidArgument, ResourceExhausted

SAMPLES = st.sampled_from([1, 1, 1, 2, 3])
TENANTS = st.sampled_from(["acme", "acme", "acme", "zoo", "bar"])


class SchedulerStates(RuleBasedStateMachine):
    """Requests come, are cancelled, fail and get preempted, with memory for one or a few of them."""

    layout = scheduling.LAYOUT
    least_pages = 45  # of the largest request that is drawn below

    @initialize(
        memory=st.sampled_from([1, 4 / 3, 2, 6]),
        max_running=st.integers(1, 6),
        max_step_rows=st.sampled_from([1, 3, 7, 16, 64, 500]),
        max_waiting=st.integers(1, 8),
        spare_blocks=st.sampled_from([0, 0, 1, 4]),
        reuse=st.sampled_from([True, True, True, False]),
    )
    def start(self, memory: float, **limits: Any) -> None:
        self.before, scheduling.LAYOUT = scheduling.LAYOUT, self.layout
        self.limits = limits = limits | {"pages": round(memory * self.least_pages)}
        self.run = Simulation(scheduler(**limits))
        self.names = itertools.count()
        self.accepted = 0
        self.owed = 0  # rows of all accepted requests, in their largest segment

    @rule(rows=st.integers(1, 60), new=st.integers(1, 20), tenant=TENANTS, priority=st.integers(-1, 1), samples=SAMPLES)
    def submit_text(self, rows: int, **fields: Any) -> None:
        self._submit(sequence(f"text{next(self.names)}", rows, **fields))

    @rule(
        image=st.sampled_from([b"K", b"L"]),
        count=st.integers(1, 4),
        kept=st.sampled_from([None, 5, 20]),
        samples=SAMPLES,
        new=st.integers(1, 20),
        tenant=TENANTS,
        priority=st.integers(-1, 1),
    )
    def submit_burst(self, image: bytes, count: int, **fields: Any) -> None:
        for _ in range(count):
            self._submit(about(image, f"image{next(self.names)}", **fields))

    @rule(count=st.integers(1, 9))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._step()

    @rule(data=st.data(), to=st.sampled_from([State.CANCELLED, State.FAILED]))
    def end_one(self, data: st.DataObject, to: State) -> None:
        if self.run.alive:
            self.run.end(self.run.alive[data.draw(st.sampled_from(sorted(self.run.alive)))], to)

    @invariant()
    def limits_hold(self) -> None:
        own = self.run.own
        own._cache.check_integrity()
        assert own.running <= own._places <= self.limits["max_running"]
        assert sum(own._queue.fresh.values()) <= self.limits["max_waiting"]
        assert own.running + own.waiting == len(self.run.alive)

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        try:
            self._end_all()
        finally:
            scheduling.LAYOUT = self.before

    def _end_all(self) -> None:
        patience = self.run.steps + 4 * self.owed + 10
        while self.run.alive:
            self._step()
            assert self.run.steps < patience, "somebody does not get on"
        own = self.run.own
        assert len(self.run.ended) == self.accepted
        assert (own.running, own.waiting, own._cache.available) == (0, 0, self.limits["pages"])
        assert (own._followers._chains, own._queue._tenants, own._queue._arrivals) == ({}, {}, {})

    def _submit(self, each: Sequence) -> None:
        try:
            self.run.own.check(each)
            self.run.own.check_room(each.request.tenant)
        except ResourceExhausted:
            return
        except InvalidArgument:
            if each.samples == 1:  # one fits into the fewest pages
                raise
            return
        self.accepted += 1
        self.owed += each.samples * max(each.most_rows())
        self.run.add(each)

    def _step(self) -> None:
        alive = bool(self.run.alive)
        rows = self.run.step()
        assert bool(rows) is alive, "a step without rows"
        for segment in self.layout.segments:
            assert sum(counts[segment.index] for counts in rows.values()) <= self.limits["max_step_rows"]


class StatesOfUnlikeSegments(SchedulerStates):
    """A block takes one page in the first segment and three in the second; eight blocks' hidden states share a page."""

    layout = PageLayout(split_layers(8, (2,)), 4, KvShape(4, 2, 4, 4))
    least_pages = 83


TestSchedulerStates = SchedulerStates.TestCase
TestSchedulerStates.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestStatesOfUnlikeSegments = StatesOfUnlikeSegments.TestCase
TestStatesOfUnlikeSegments.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("spare_blocks", [0, 4])
@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_while_others_keep_coming(seed: int, spare_blocks: int) -> None:
    """Tight memory, three tenants, large and small requests and bursts: from coming to the end it takes a bounded time."""
    generator = random.Random(seed)
    names, came = itertools.count(), dict[str, int]()

    def draw(tenant: str) -> Sequence:
        name = f"r{next(names)}"
        came[name] = run.steps
        if generator.random() < 0.5:
            return sequence(name, generator.choice([2, 20, 70]), new=generator.randint(1, 20), tenant=tenant)
        return about(generator.choice([b"K", b"L"]), name, new=generator.randint(1, 20), tenant=tenant)

    own = scheduler(70, max_running=4, max_waiting=99, max_step_rows=20, spare_blocks=spare_blocks)
    run = Simulation(own, then=lambda each: [draw(each.request.tenant)])
    for tenant in ("acme", "zoo", "bar"):
        run.add(*(draw(tenant) for _ in range(5)))
    longest = 0
    for _ in range(1500):
        before = set(run.alive)
        run.step()
        longest = max([longest, *(run.steps - came[name] for name in before - run.alive.keys())])
    longest = max([longest, *(run.steps - came[name] for name in run.alive)])
    assert run.own.preemptions > (0 if spare_blocks else 10)
    assert len(run.ended) > 100
    assert longest < 300
