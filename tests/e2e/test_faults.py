"""A few of the faults of `python -m tests.faults`, shortened: nothing is lost, nothing ends twice."""

from __future__ import annotations

from tests.faults.injections import all_faults
from tests.faults.run import run_faults

CHOSEN = {("stop", "redis"), ("partition", "encoder"), ("kill", "redis")}


async def test_whatever_breaks_every_request_ends_once() -> None:
    chosen = [fault for fault in all_faults() if (fault.name, fault.component) in CHOSEN]
    rows = await run_faults(chosen, 2.0, lambda row: None)
    assert len(rows) == len(CHOSEN)
    assert [problem for row in rows for problem in row.problems()] == []
