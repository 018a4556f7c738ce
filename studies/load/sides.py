"""The sides of a comparison: a target, and what its processes and its services' counters say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studies.load.counters import counted, read_counters
from studies.load.driver import drive
from studies.load.hardware import busy_s
from studies.load.record import Record
from studies.load.targets.base import Target
from studies.load.workload import Ask
from vscan.errors import InvalidArgument

GENERATOR = "load"


@dataclass(slots=True)
class Side:
    """One configuration, ready to be asked.

    Attributes:
        name: in files.
        label: in pictures.
        target: whom to ask.
        metrics: addresses of its services' metrics; empty where they are not known.
        pids: its processes on this machine, by what they are.
        peer: whether it is another program, and no step of the comparison.
        told: settings and versions, for the report.
    """

    name: str
    label: str
    target: Target
    metrics: Sequence[str] = ()
    pids: Mapping[str, int] = field(default_factory=dict)
    peer: bool = False
    told: Mapping[str, object] = field(default_factory=dict)

    def busy_s(self) -> dict[str, float]:
        """Processor seconds of each of its processes so far, and of this one."""
        known = {name: busy_s(pid) for name, pid in self.pids.items()}
        return {GENERATOR: time.process_time(), **{name: seconds for name, seconds in known.items() if seconds is not None}}


@dataclass(slots=True)
class Run:
    """One load on one side: every request, and what was spent on it meanwhile."""

    records: list[Record]
    busy_s: dict[str, float]
    counters: dict[str, float]


async def run_on(side: Side, asks: Sequence[Ask], *, clients: int | None) -> Run:
    """Puts a load on one side and waits for its end."""
    counters, busy = _counters(side), side.busy_s()
    records = await drive(side.target, asks, clients=clients)
    spent = {name: seconds - busy[name] for name, seconds in side.busy_s().items() if name in busy}
    after = _counters(side)
    return Run(records, spent, {} if counters is None or after is None else counted(counters, after))


def _counters(side: Side) -> dict[str, float] | None:
    try:
        return read_counters(side.metrics) if side.metrics else {}
    except InvalidArgument:  # a service that died under a load; the requests say so, and the others go on
        return None
