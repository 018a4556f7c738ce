"""Those of the faults that need root: full disks, moved clocks; and a cable that is pulled."""

from __future__ import annotations

import pytest

from tests.faults.injections import Fault, all_faults
from tests.faults.run import run_faults

pytestmark = pytest.mark.system

CHOSEN = {("disk_full", "redis"), ("disk_full", "decoder"), ("clock_forward", "decoder"), ("clock_back", "redis")}


@pytest.mark.parametrize("moves_clocks", [False, True])
async def test_whatever_breaks_every_request_ends_once(moves_clocks: bool) -> None:
    chosen = [fault for fault in all_faults() if _is_chosen(fault) and fault.moves_clocks is moves_clocks]
    assert [fault.obstacle for fault in chosen] == ["", ""]
    rows = await run_faults(chosen, 2.0, lambda row: None)
    assert [problem for row in rows for problem in row.problems()] == []


def _is_chosen(fault: Fault) -> bool:
    return (fault.name, fault.component) in CHOSEN
