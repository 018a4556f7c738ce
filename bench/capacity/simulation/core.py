"""A processor core, or a device: whoever works on it at once shares it by weight, usually evenly (processor sharing)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Environment, Event

_MS = 1000.0
# Below this work is over; rounding may leave some of it.
_NOTHING_S = 1e-9

# What simpy runs: yields events, returns anything.
Process = Generator[Event, Any, Any]


class Work:
    """Something that a core does; `done` happens when it is over."""

    __slots__ = ("done", "left_s", "weight")

    def __init__(self, done: Event, left_s: float, weight: float) -> None:
        self.done = done
        self.weight = weight
        self.left_s = left_s  # processor seconds


class Core:
    """Times are seconds of the simulation, work is in processor seconds.

    With two at work each gets half: 10 ms and 4 ms that begin together end after 14 and 8 ms. A work of weight 3 gets three
    times as much as one of weight 1.
    """

    def __init__(self, env: Environment) -> None:
        self.busy_s = 0.0
        self._env = env
        self._works: list[Work] = []
        self._since_s = env.now
        self._timer = 0  # the one that counts; older ones are void

    @property
    def now_s(self) -> float:
        """The simulation's time."""
        return float(self._env.now)

    def work(self, duration_ms: float, weight: float = 1.0) -> Event:
        """Happens when so much has been done."""
        return self.begin(duration_ms, weight).done

    def begin(self, duration_ms: float, weight: float = 1.0) -> Work:
        """The same, for who may want it `trimmed`."""
        self._pass_time()
        work = Work(self._env.event(), duration_ms / _MS, weight)
        self._works.append(work)
        self._set_timer()
        return work

    def left_ms(self, work: Work) -> float:
        """What is still to do of it."""
        self._pass_time()
        return work.left_s * _MS

    def trim(self, work: Work, left_ms: float) -> None:
        """It is over after so much more."""
        self._pass_time()
        work.left_s = left_ms / _MS
        self._set_timer()

    def _pass_time(self) -> None:
        passed = self._env.now - self._since_s
        self._since_s = self._env.now
        if passed and self._works:
            self.busy_s += passed
            share = passed / sum(work.weight for work in self._works)
            for work in self._works:
                work.left_s -= share * work.weight

    def _set_timer(self) -> None:
        self._timer += 1
        if self._works:
            number = self._timer
            soonest = max(0.0, min(work.left_s / work.weight for work in self._works))
            soonest *= sum(work.weight for work in self._works)
            self._env.timeout(soonest).callbacks.append(lambda _: self._expired(number))

    def _expired(self, number: int) -> None:
        if number != self._timer:
            return
        self._pass_time()
        over = [work for work in self._works if work.left_s <= _NOTHING_S]
        self._works = [work for work in self._works if work.left_s > _NOTHING_S]
        for work in over:
            work.done.succeed()
        self._set_timer()
