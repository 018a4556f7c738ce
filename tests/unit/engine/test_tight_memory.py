"""In tight memory requests give way and run rows again: how much that costs, and what counts as reuse."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.scheduling import Simulation, about, scheduler, sequence


def cost(spare_blocks: int, *, tenants: int = 1, seed: int = 0) -> tuple[float, int]:
    """Work that was run over work that was needed, less 1; and the steps it took."""
    generator = random.Random(seed)
    limits: dict[str, Any] = {"max_running": 8, "max_waiting": 999, "max_step_rows": 256, "max_context_tokens": 999}
    run = Simulation(scheduler(80, spare_blocks=spare_blocks, **limits))
    needed = 0
    for place in range(80):
        rows, new = generator.randint(20, 40), generator.randint(20, 60)
        run.add(sequence(f"r{place}", rows, new=new, tenant=f"t{place % tenants}"))
        needed += 4 * (rows + new - 1)
    run.run()
    return run.work.total() / needed - 1, run.steps


@pytest.mark.parametrize("tenants", [1, 3])
def test_leaving_room_for_the_answers_under_way_saves_rows_that_are_run_twice(tenants: int) -> None:
    one_block, its_steps = cost(1, tenants=tenants)
    twice, steps = cost(4, tenants=tenants)
    assert one_block > 0.2
    assert twice < 0.6 * one_block
    assert steps < 1.12 * its_steps


def test_rows_that_a_preempted_request_held_itself_are_no_reuse() -> None:
    run = Simulation(scheduler(400, max_running=2))
    again = sequence("again", 40, new=9)
    run.add(again)
    run.step()
    run.own._preempt(again)
    assert run.step() == {"again": (1, 1)}  # it found all of its full blocks
    assert run.own._cache.reused_rows == 0


def test_rows_that_another_made_meanwhile_are_reuse() -> None:
    """It came to row 20 before it gave way to one of higher priority, which came to the end: rows 20 to 43 are alike."""
    run = Simulation(scheduler(400, max_running=1, max_step_rows=20))
    late, first = about(b"K", "late", new=1), about(b"K", "first", new=1, priority=1)
    run.add(late)
    run.step()
    run.own._preempt(late)
    run.add(first)
    run.run()
    assert run.own._cache.reused_rows == 24
    assert run.rows == {"late": 20 + 6, "first": 50}
