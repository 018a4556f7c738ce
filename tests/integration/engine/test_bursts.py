"""Questions about one image that come at once: the engine runs its rows once, and everybody's answer is as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from decoder_service.engine import Engine
from decoder_service.kv_cache.cache import Copy
from decoder_service.request import EngineRequest, Event, Failure, Pruning, Result
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.sequence import Piece
from tests.support.engines import ids_of, make_engine, make_runner, run_all
from tests.support.language_models import ask, lay_out, random_image, random_language
from vscan.specs import KeepTokens, Rater

PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(12), KeepTokens(4)), rater=Rater.LAST_TOKEN)
TEXT, VISUAL, ASKED = 6, 60, 5
PROMPT = TEXT + VISUAL + ASKED
TAIL = PROMPT - 64  # full blocks of 4 rows before the question


@pytest.fixture(scope="module")
def model() -> Any:
    return random_language()


class CountingRunner(Runner):
    """Counts rows of segment 0 by request; breaks, if told, the first step that holds a request."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.rows: dict[str, int] = {}
        self.breaks_at = ""

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        for piece in pieces:
            name = piece.sequence.request_id
            self.rows[name] = self.rows.get(name, 0) + piece.rows(0)
        if self.breaks_at in {piece.sequence.request_id for piece in pieces}:
            raise RuntimeError("a bad step")
        return super().run(pieces, copies)


def question(place: int, picture: int = 0) -> EngineRequest:
    prompt = lay_out([[1, 5, 6, 7, 8, 9], random_image(VISUAL, hidden=32, seed=picture), [12 + place, 9, 11, 13, 20 + place]])
    return ask(prompt, pruning=PRUNED, max_new_tokens=4, name=f"{picture}.{place}")


def engine_and_runner(model: Any, **limits: Any) -> tuple[Engine, CountingRunner]:
    runner = make_runner(model, CountingRunner)
    return make_engine(model, runner=runner, **limits), runner


def add(engine: Engine, requests: Sequence[EngineRequest]) -> None:
    for request in requests:
        engine.check(request)
        engine.add(request, accepted_s=0.0)


def finish(engine: Engine) -> tuple[dict[str, list[Event]], int]:
    """Events by request, and the most blocks of all segments that were held."""
    events: dict[str, list[Event]] = {}
    most = 0
    while not engine.idle:
        for name, event in engine.step():
            events.setdefault(name, []).append(event)
        most = max(most, sum(segment.blocks for segment in engine.figures.segments))
        engine.check_integrity()
    return events, most


def assert_answered(model: Any, events: dict[str, list[Event]], requests: Sequence[EngineRequest]) -> None:
    for request in requests:
        assert isinstance(events[request.request_id][-1], Result)
        alone = run_all(make_engine(model, reuse=False), [request])[request.request_id]
        assert ids_of(events[request.request_id]) == ids_of(alone)


def test_eight_at_once_are_as_cheap_as_one_and_then_seven(model: Any) -> None:
    requests = [question(place) for place in range(8)]
    at_once, counted = engine_and_runner(model)
    add(at_once, requests)
    events, most = finish(at_once)
    in_turn, counted_in_turn = engine_and_runner(model)
    add(in_turn, requests[:1])
    in_turn.step()
    add(in_turn, requests[1:])
    _, most_in_turn = finish(in_turn)
    assert_answered(model, events, requests)
    assert counted.rows == counted_in_turn.rows
    assert sum(counted.rows.values()) == PROMPT + 7 * TAIL + 8 * 3  # the last token of an answer never runs
    assert (most, at_once.figures.reused_rows) == (most_in_turn, 7 * 64)


@pytest.mark.parametrize("max_step_rows", [8, 20, 64])
def test_a_prefix_longer_than_a_step_is_run_once(model: Any, max_step_rows: int) -> None:
    requests = [question(place) for place in range(8)]
    engine, counted = engine_and_runner(model, max_step_rows=max_step_rows)
    add(engine, requests)
    events, _ = finish(engine)
    assert_answered(model, events, requests)
    assert sum(counted.rows.values()) == PROMPT + 7 * TAIL + 8 * 3


def test_two_images_are_run_once_each(model: Any) -> None:
    requests = [question(place, picture) for place in range(4) for picture in (1, 2)]
    engine, counted = engine_and_runner(model)
    add(engine, requests)
    events, _ = finish(engine)
    assert_answered(model, events, requests)
    assert sum(counted.rows.values()) == 2 * PROMPT + 6 * TAIL + 8 * 3


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_when_the_maker_is_cancelled_another_makes_the_rows(model: Any, steps: int) -> None:
    requests = [question(place) for place in range(8)]
    engine, counted = engine_and_runner(model, max_step_rows=16)
    add(engine, requests)
    for _ in range(steps):
        assert engine.step() == []
    assert len(engine.cancel(requests[0].request_id)) == 1
    engine.check_integrity()
    events, _ = finish(engine)
    assert_answered(model, events, requests[1:])
    assert counted.rows[requests[0].request_id] == 16 * steps
    assert sum(counted.rows.values()) == 16 * steps + PROMPT + 6 * TAIL + 7 * 3


def test_a_maker_that_breaks_takes_nobody_with_it(model: Any) -> None:
    requests = [question(place) for place in range(8)]
    engine, counted = engine_and_runner(model, max_step_rows=16)
    add(engine, requests)
    engine.step()
    counted.breaks_at = requests[0].request_id
    events, _ = finish(engine)
    assert_answered(model, events, requests[1:])
    assert isinstance(events[requests[0].request_id][-1], Failure)
