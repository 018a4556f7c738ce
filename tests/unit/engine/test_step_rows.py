"""Prompts share a step: short ones pass, the oldest is never held up, and no row of the step stays unused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.step_rows import share_rows
from tests.support.scheduling import Simulation, scheduler, sequence


@pytest.mark.parametrize(
    ("rows", "needs", "given_rows"),
    [
        (16, [480, 20, 4], [5, 7, 4]),
        (16, [480, 4], [12, 4]),
        (16, [480], [16]),
        (2048, [2900, 2900, 2900], [2048, 0, 0]),
        (2048, [852, 2900, 2900], [852, 1196, 0]),
        (100, [20, 30], [20, 30]),
        (1, [9, 2, 2], [1, 0, 0]),
        (0, [9, 2], [0, 0]),
        (7, [], []),
    ],
)
def test_the_oldest_has_an_equal_share_and_the_shortest_the_rest(rows: int, needs: list[int], given_rows: list[int]) -> None:
    assert share_rows(rows, needs) == given_rows


@given(st.integers(0, 300), st.lists(st.integers(2, 200), max_size=9))
def test_all_rows_are_given_and_nobody_gets_more_than_needed(rows: int, needs: list[int]) -> None:
    shares = share_rows(rows, needs)
    assert sum(shares) == min(rows, sum(needs))
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True))
    if needs:
        assert shares[0] >= min(needs[0], rows // len(needs))


def test_a_short_prompt_passes_a_long_one() -> None:
    run = Simulation(scheduler(pages=1000, max_step_rows=16, max_context_tokens=999))
    run.add(sequence("long", 480, new=1))
    run.step()
    run.add(sequence("short", 4, new=1))
    run.run()
    assert run.first_token == {"short": 2, "long": 31}
    assert run.steps == -(-484 // 16)  # as many as one after the other


def test_a_stream_of_short_prompts_does_not_hold_up_a_long_one() -> None:
    names = iter(range(10**6))
    run = Simulation(
        scheduler(pages=1000, max_running=4, max_step_rows=16, max_context_tokens=999),
        then=lambda each: [sequence(f"short{next(names)}", 20, new=1)] if each.request_id != "long" else [],
    )
    run.add(sequence("long", 200, new=1))
    for _ in range(5):
        run.add(sequence(f"short{next(names)}", 20, new=1))
    while "long" in run.alive:
        run.step()
    assert run.first_token["long"] <= 200 // (16 // 4) + 1


def test_more_sequences_than_rows_of_a_step_take_turns_to_begin() -> None:
    run = Simulation(scheduler(pages=1000, max_running=8, max_waiting=9, max_step_rows=3))
    run.add(*(sequence(f"r{place}", 2, new=5) for place in range(8)))
    while run.alive:
        run.step()
        assert run.own.running <= 3
    assert set(run.ended) == {f"r{place}" for place in range(8)}
