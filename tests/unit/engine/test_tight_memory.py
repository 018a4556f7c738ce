"""In tight memory requests give way and run rows again: how much that costs, and what counts as reuse."""

from __future__ import annotations

import random
from typing import Any

import pytest

from decoder_service.kv_cache.cache import KvCache, Tables
from decoder_service.kv_cache.prefix import RowIdentity
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.request import EngineRequest, Prompt, Sampling
from decoder_service.scheduler import Scheduler
from decoder_service.sequence import Sequence
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


def test_what_fits_alone_begins_wherever_the_hidden_states_that_it_finds_lie() -> None:
    """Three blocks that came one by one while others grew, each in another page of places, four of which would share one."""
    layout = PageLayout(split_layers(8, (1,)), 2, KvShape(4, 2, 4, 4))
    cache = KvCache(layout, pages=layout.pages([6, 6]))
    own = Scheduler(cache, max_context_tokens=100)
    request = EngineRequest(request_id="r", prompt=Prompt(tuple(range(6))), sampling=Sampling(max_new_tokens=1))
    rows = RowIdentity(request.prompt)
    opened = [_opened(cache, rows, 2)]
    for block in range(3):
        assert cache.reserve(opened[0], (2 * block + 2, 0))
        cache.commit(opened[0], (2 * block + 2, 0), rows)
        opened.append(_opened(cache, RowIdentity(Prompt(tuple(range(100 + block, 106 + block)))), 6))
    for tables in opened:
        cache.close(tables)
    assert cache.page_usage().idle == 3 + 3  # keys and values of three blocks, and three pages for their hidden states
    each = Sequence(request, layout.segments)
    own.check(each)
    own.add(each)
    assert [piece.ranges for piece in own.schedule().pieces] == [((0, 6), (0, 6))]
    cache.check_integrity()


def _opened(cache: KvCache, rows: RowIdentity, count: int) -> Tables:
    """So many rows of the first segment alone."""
    tables = cache.open(rows, (count, 0), tenant="default", pruned_from=2)
    assert tables is not None
    return tables
