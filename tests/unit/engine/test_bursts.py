"""Several questions about one image at once run as many rows, and hold as many blocks, as one question and then the others."""

from __future__ import annotations

from typing import Any

import pytest

from decoder_service.request import State
from decoder_service.sequence import Sequence
from tests.support.scheduling import Simulation, about, scheduler, sequence

PROMPT = 50  # rows of a question about an image: 4, 40, 6
TAIL = PROMPT - 44  # 11 full blocks of 4 rows lie before the question


def simulation(**limits: Any) -> Simulation:
    return Simulation(scheduler(400, **({"max_running": 8, "max_waiting": 64} | limits)))


def questions(count: int, image: bytes = b"K", **fields: object) -> list[Sequence]:
    return [about(image, f"{image.decode()}{place}", **fields) for place in range(count)]  # type: ignore[arg-type]


def most_blocks(run: Simulation) -> int:
    most = 0
    while run.alive:
        run.step()
        most = max(most, run.held_blocks)
    return most


def test_eight_questions_at_once_run_and_hold_as_much_as_one_and_then_seven() -> None:
    at_once, in_turn = simulation(), simulation()
    at_once.add(*questions(8, new=9))
    first, *others = questions(8, new=9)
    in_turn.add(first)
    in_turn.step()
    in_turn.add(*others)
    assert most_blocks(at_once) == most_blocks(in_turn)
    assert at_once.rows == in_turn.rows
    assert at_once.rows["K0"] == PROMPT + 8
    assert at_once.rows["K7"] == TAIL + 8
    assert at_once.steps == in_turn.steps  # waiting for the first one costs nobody more than its one step


@pytest.mark.parametrize("max_step_rows", [5, 9, 16, 30])
def test_a_prefix_that_is_made_in_pieces_is_made_once(max_step_rows: int) -> None:
    run = simulation(max_step_rows=max_step_rows)
    run.add(*questions(8, new=1))
    run.run()
    assert sum(run.rows.values()) == PROMPT + 7 * TAIL


def test_questions_about_two_images_begin_together_and_share_with_their_own() -> None:
    run = simulation()
    run.add(*(each for pair in zip(questions(4, b"K", new=1), questions(4, b"L", new=1), strict=True) for each in pair))
    assert run.step().keys() == {"K0", "L0"}
    run.run()
    assert sum(run.rows.values()) == 2 * PROMPT + 6 * TAIL


def test_who_shares_little_does_not_wait() -> None:
    run = simulation()
    other_image, only_text = about(b"L", "L", new=1), sequence("text", 12, new=1)
    run.add(about(b"K", "K", new=1), other_image, only_text)  # 4 rows of text are the same in K and L
    assert run.step().keys() == {"K", "L", "text"}


def test_others_pass_who_waits_for_rows_in_the_making() -> None:
    run = simulation()
    run.add(*questions(2, new=1), sequence("text", 5, new=1))
    assert run.step().keys() == {"K0", "text"}


@pytest.mark.parametrize("end", [State.CANCELLED, State.FAILED])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_when_the_maker_ends_another_makes_the_rows(end: State, steps: int) -> None:
    run = simulation(max_step_rows=12)
    run.add(*questions(8, new=1))
    for _ in range(steps):
        run.step()
    run.end(run.alive["K0"], end)
    run.run()
    assert run.rows["K0"] == 12 * steps
    assert sum(run.rows.values()) == 12 * steps + PROMPT + 6 * TAIL  # rows are believed with the first token
    assert set(run.ended) == {f"K{place}" for place in range(8)}


def test_a_preempted_maker_holds_nobody_up_for_ever() -> None:
    """Of one tenant the request of lowest priority gives way: here the maker, to an answer that grows."""
    run = Simulation(scheduler(pages=34, max_running=8, max_waiting=64, max_step_rows=5))
    run.add(about(b"Z", "talker", text=4, visual=4, asked=4, kept=None, new=30, priority=1))
    while not run.first_token:
        run.step()
    run.add(*questions(3, new=1))
    lost = 0
    while not run.own.preemptions:
        lost = run.rows["K0"]
        run.step()
    assert 0 < lost < PROMPT
    assert run.alive["K0"].state is State.WAITING
    run.run()
    assert set(run.ended.values()) == {State.FINISHED}
    assert lost + PROMPT < sum(run.rows[f"K{place}"] for place in range(3)) <= lost + PROMPT + 2 * TAIL


def test_never_across_tenants() -> None:
    run = simulation()
    run.add(about(b"K", "one", tenant="acme"), about(b"K", "two", tenant="zoo"))
    assert run.step().keys() == {"one", "two"}


def test_without_reuse_nobody_waits() -> None:
    run = Simulation(scheduler(pages=400, reuse=False, max_running=8, max_waiting=64))
    run.add(*questions(8, new=1))
    assert len(run.step()) == 8


def test_who_found_no_room_is_tried_again_when_a_neighbour_has_made_its_prefix() -> None:
    """No page comes back, but 11 fewer are needed."""
    run = Simulation(scheduler(pages=66, max_running=3, max_waiting=9))
    long = about(b"K", "long", asked=60, new=1)  # 26 blocks and 19 behind the pruning; what it shares is less than half of it
    run.add(*questions(1), long)  # 13 blocks and 5
    assert run.step().keys() == {"K0"}
    assert run.step().keys() == {"K0", "long"}
    assert run.rows["long"] == 60


def test_a_request_that_never_ran_keeps_nothing_behind() -> None:
    run = simulation()
    run.add(*questions(3))
    run.step()
    run.end(run.alive["K2"], State.CANCELLED)
    run.run()
    assert run.own._followers._chains == {}
