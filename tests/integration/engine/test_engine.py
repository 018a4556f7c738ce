"""The engine's promises, step by step, without its thread."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from decoder_service.kv_cache.cache import Copy
from decoder_service.request import (
    Delta,
    EngineRequest,
    Failure,
    FinishReason,
    ImageSpan,
    Prompt,
    Pruning,
    Result,
)
from decoder_service.runner.faults import DeviceLost
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.sequence import Piece
from tests.support.engines import WatchedRunner, add, assert_empty, ids_of, make_engine, make_runner, run_all, text_of
from tests.support.language_models import ask, lay_out, random_image, random_language
from vscan.errors import Cancelled, DeadlineExceeded, InternalError, InvalidArgument, ResourceExhausted
from vscan.rpc.deadlines import Deadline
from vscan.specs import KeepTokens, Rater
from vscan.telemetry import names
from vscan.telemetry.logs import JsonFormatter

PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(6), KeepTokens(2)), rater=Rater.LAST_TOKEN)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_language()


def question(picture: int = 0, **fields: Any) -> EngineRequest:
    image = random_image(10, hidden=32, seed=picture)
    return ask(lay_out([[1, 5], image, [9, 11 + picture]]), **({"pruning": PRUNED} | fields))


def test_an_answer_is_deltas_and_then_one_result(model: Any) -> None:
    engine, request = make_engine(model), question(max_new_tokens=5)
    events = run_all(engine, [request])[request.request_id]
    assert len(events) == 6
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.reason, result.completion_tokens) == (FinishReason.LENGTH, 5)
    assert [(done.layer, done.tokens_before, done.tokens_after) for done in result.pruning] == [(2, 10, 6), (4, 6, 2)]
    assert text_of(events) == " ".join(f"w{token}" for token in ids_of(events))
    assert result.queue_ms >= 0
    assert 0 < result.prune_ms < result.prefill_ms
    assert result.decode_ms > 0
    assert_empty(engine)


def test_steps_tell_their_rows_and_sequences_once(model: Any) -> None:
    runner = make_runner(model, WatchedRunner)
    engine = make_engine(runner=runner, max_step_rows=16)
    run_all(engine, [question(picture, max_new_tokens=4) for picture in range(3)])
    steps = engine.take_steps()
    assert sum(step.rows for step in steps) == runner.rows[0]
    assert max(step.sequences for step in steps) == 3
    assert all(0 < step.rows <= 16 and step.duration_ms > 0 for step in steps)
    assert sum(len(step.queue_ms) for step in steps) == 3, "each request begins once"
    assert all(queue_ms > 0 for step in steps for queue_ms in step.queue_ms)
    engine.step()
    assert engine.take_steps() == [], "told once, and none of a step without rows"


def test_a_stop_string_ends_the_answer_early(model: Any) -> None:
    whole = question(max_new_tokens=6)
    ids = ids_of(run_all(make_engine(model), [whole])[whole.request_id])
    stopped = question(max_new_tokens=6, stop=(f"w{ids[2]} w{ids[3]}"[:-1],))
    events = run_all(make_engine(model), [stopped])[stopped.request_id]
    assert isinstance(events[-1], Result)
    assert events[-1].reason is FinishReason.STOP_STRING
    assert text_of(events) == f"w{ids[0]} w{ids[1]} "


def test_a_seed_gives_the_same_answer_alone_and_in_company(model: Any) -> None:
    def one() -> EngineRequest:
        return question(3, max_new_tokens=8, temperature=1.5, seed=77)

    alone, together, company = one(), one(), [question(seed, temperature=1.0, seed=seed) for seed in range(3)]
    first = ids_of(run_all(make_engine(model), [alone])[alone.request_id])
    second = run_all(make_engine(model), [*company, together])
    assert ids_of(second[together.request_id]) == first
    other = question(3, max_new_tokens=8, temperature=1.5, seed=78)
    assert ids_of(run_all(make_engine(model), [other])[other.request_id]) != first


def test_cancelling_mid_decode_frees_and_ends_once(model: Any) -> None:
    engine = make_engine(model)
    gone, stays = add(engine, question(1, max_new_tokens=50)), add(engine, question(2, max_new_tokens=4))
    engine.step()
    engine.step()
    with_both = engine.figures.segments[0].rows
    outcomes = engine.cancel(gone.request_id)
    assert [(name, type(event.error)) for name, event in outcomes if isinstance(event, Failure)] == [
        (gone.request_id, Cancelled)
    ]
    assert engine.figures.segments[0].rows == with_both / 2
    assert engine.cancel(gone.request_id) == []
    left = [outcome for _ in range(10) for outcome in engine.step()]
    assert {name for name, _ in left} == {stays.request_id}
    assert_empty(engine)


def test_a_deadline_ends_who_waits_and_who_runs_between_steps(model: Any) -> None:
    engine = make_engine(model, max_running=1)
    passed = Deadline(0.0)
    late, waits = question(1, max_new_tokens=50), question(2, max_new_tokens=50)
    stays = add(engine, question(3, max_new_tokens=3))
    for request in (late, waits):
        add(engine, replace(request, deadline=passed))
    outcomes = engine.step()
    ended = {name: type(event.error) for name, event in outcomes if isinstance(event, Failure)}
    assert ended == {late.request_id: DeadlineExceeded, waits.request_id: DeadlineExceeded}
    left = [outcome for _ in range(5) for outcome in engine.step()]
    assert {name for name, _ in left} == {stays.request_id}
    assert_empty(engine)


def test_a_long_prompt_does_not_stop_others_answers(model: Any) -> None:
    engine = make_engine(model, max_step_rows=16)
    talks = add(engine, question(1, max_new_tokens=40))
    engine.step()
    long = add(engine, with_prompt(lay_out([[1, *([7] * 100)]]), max_new_tokens=1))
    steps = 0
    ended: set[str] = set()
    while long.request_id not in ended:
        outcomes = engine.step()
        assert [name for name, event in outcomes if isinstance(event, Delta)][:1] == [talks.request_id]
        ended |= {name for name, event in outcomes if isinstance(event, Result)}
        steps += 1
    assert steps == -(-101 // 15)
    engine.cancel(talks.request_id)
    assert_empty(engine)


def test_what_is_preempted_comes_back_and_is_never_ranked_again(model: Any) -> None:
    alone = question(7, max_new_tokens=30)
    expected = run_all(make_engine(model), [alone])[alone.request_id]
    # Two prompts fit with a few blocks to spare; their answers do not.
    engine = make_engine(model, pages=48, prune_layers=(2, 4))
    one, two = question(7, max_new_tokens=30), question(8, max_new_tokens=30)
    events = run_all(engine, [two, one])
    assert engine.figures.preemptions > 0
    assert ids_of(events[one.request_id]) == ids_of(expected)
    result, whole = events[one.request_id][-1], expected[-1]
    assert isinstance(result, Result)
    assert isinstance(whole, Result)
    assert result.pruning == whole.pruning
    assert_empty(engine)


def test_a_waiting_request_can_be_cancelled(model: Any) -> None:
    engine = make_engine(model, max_running=1)
    add(engine, question(max_new_tokens=3))
    waits = add(engine, question(max_new_tokens=3))
    engine.step()
    assert engine.figures.waiting == 1
    assert len(engine.cancel(waits.request_id)) == 1
    for _ in range(5):
        assert waits.request_id not in {name for name, _ in engine.step()}
    assert_empty(engine)


class BreakingRunner(Runner):
    """Raises `error` in a step that holds the request named `victim`."""

    victim = "victim"
    error: Exception = RuntimeError("secret inner text")

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        if self.victim in {piece.sequence.request_id for piece in pieces}:
            raise self.error
        return super().run(pieces, copies)


def test_a_step_that_breaks_ends_its_own_requests_and_no_others(model: Any) -> None:
    engine = make_engine(model, runner=make_runner(model, BreakingRunner), max_running=2)
    with_it, victim = question(1, max_new_tokens=3), question(2, name="victim")
    later = question(max_new_tokens=3)
    events = run_all(engine, [with_it, victim, later])
    for name in (with_it.request_id, "victim"):
        [failure] = events[name]
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, InternalError)
        assert "secret" not in str(failure.error)
    assert isinstance(events[later.request_id][-1], Result)
    assert_empty(engine)


def test_what_broke_is_logged_with_the_trace_of_its_request(model: Any) -> None:
    """The caller is told the trace alone, and the stack stands here: on a thread that serves all."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("decoder_service.engine")
    log.addHandler(handler)
    try:
        traced = question(name="victim", trace_context={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        run_all(make_engine(model, runner=make_runner(model, BreakingRunner)), [traced])
        log.warning("something else")
    finally:
        log.removeHandler(handler)
    broke, other = map(json.loads, handler.stream.getvalue().splitlines())
    assert broke["trace_id"] == trace
    assert "RuntimeError" in broke["traceback"]
    assert "trace_id" not in other


def test_a_device_without_memory_asks_to_come_back(model: Any) -> None:
    runner = make_runner(model, BreakingRunner)
    runner.error = ResourceExhausted("the device is out of memory", retry_delay_ms=1)
    [failure] = run_all(make_engine(model, runner=runner), [question(name="victim")])["victim"]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ResourceExhausted)


def test_a_lost_device_is_the_end(model: Any) -> None:
    runner = make_runner(model, BreakingRunner)
    runner.error = DeviceLost("gone")
    engine = make_engine(model, runner=runner)
    add(engine, question(name="victim"))
    with pytest.raises(DeviceLost):
        engine.step()


def test_a_decoder_that_breaks_ends_one_request(model: Any) -> None:
    def decode(ids: Sequence[int]) -> str:
        if len(ids) > 1:
            raise ValueError("no text")
        return "x"

    engine, request = make_engine(model, decode=decode), question()
    events = run_all(engine, [request])[request.request_id]
    assert isinstance(events[-1], Failure)
    assert_empty(engine)


def with_prompt(prompt: Prompt, **fields: Any) -> EngineRequest:
    return ask(prompt, **fields)


IMAGE = random_image(3, hidden=32, seed=1)
BAD: dict[str, tuple[EngineRequest, str]] = {
    "no tokens": (with_prompt(Prompt(())), "prompt: no tokens"),
    "id outside the vocabulary": (with_prompt(Prompt((1, 64, 3))), "prompt: token id 64"),
    "negative id": (with_prompt(Prompt((1, -1))), "prompt: token id -1"),
    "image without a place": (with_prompt(Prompt((1, 2), (), (IMAGE,))), "prompt: 0 places"),
    "place outside": (with_prompt(Prompt((1, 2), (ImageSpan(0, 1, 3),), (IMAGE,))), "overlap or lie outside"),
    "places overlap": (
        with_prompt(Prompt((1,) * 9, (ImageSpan(0, 1, 3), ImageSpan(1, 3, 3)), (IMAGE, IMAGE))),
        "overlap or lie outside",
    ),
    "another number of tokens": (with_prompt(Prompt((1,) * 9, (ImageSpan(0, 1, 4),), (IMAGE,))), r"images\[0\]: 3 tokens"),
    "another width": (with_prompt(lay_out([[1], random_image(3, hidden=16, seed=1), [2]])), r"images\[0\]: 3 tokens of 16"),
    "a layer where nothing is pruned": (
        with_prompt(lay_out([[1], IMAGE, [2]]), pruning=Pruning(layers=(3,), budgets=(KeepTokens(1),), rater=Rater.LAST_TOKEN)),
        "prune: layers",
    ),
    "budgets and layers differ": (
        with_prompt(lay_out([[1], IMAGE, [2]]), pruning=Pruning(layers=(2, 4), budgets=(KeepTokens(1),), rater=Rater.RANDOM)),
        r"prune\.budgets",
    ),
    "nobody asks after the image": (with_prompt(lay_out([[1], IMAGE]), pruning=PRUNED), "ends with an image"),
    "too long": (with_prompt(Prompt((1,) * 512)), "prompt: 512 tokens"),
    "too long with its answer": (with_prompt(Prompt((1,) * 500), max_new_tokens=13), r"sampling\.max_new_tokens"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_can_never_be_served_is_refused(model: Any, kind: str) -> None:
    request, message = BAD[kind]
    with pytest.raises(InvalidArgument, match=message):
        make_engine(model).check(request)


def test_a_prompt_that_ends_with_an_image_runs_unpruned(model: Any) -> None:
    request = with_prompt(lay_out([[1], IMAGE]))
    assert isinstance(run_all(make_engine(model), [request])[request.request_id][-1], Result)


def test_tokens_of_another_precision_are_laid_in(model: Any) -> None:
    request = with_prompt(lay_out([[1], random_image(3, hidden=32, seed=1, dtype=torch.bfloat16), [2]]))
    assert isinstance(run_all(make_engine(model), [request])[request.request_id][-1], Result)


def test_spans_lie_below_the_span_that_asked(model: Any) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_id, parent_id = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
    header = {"traceparent": f"00-{trace_id:032x}-{parent_id:016x}-01"}
    request = question(max_new_tokens=3, trace_context=header)

    run_all(make_engine(model, tracer=provider.get_tracer("test")), [request])

    spans = exporter.get_finished_spans()
    assert sorted(span.name for span in spans) == [
        names.SPAN_DECODE,
        names.SPAN_PREFILL,
        names.SPAN_PRUNE,
        names.SPAN_PRUNE,
    ]
    by_name = {span.name: span for span in spans}
    prefill, decode = by_name[names.SPAN_PREFILL], by_name[names.SPAN_DECODE]
    prunes = [span for span in spans if span.name == names.SPAN_PRUNE]
    assert all(span.context.trace_id == trace_id for span in spans)
    assert prefill.parent.span_id == decode.parent.span_id == parent_id
    assert all(span.parent.span_id == prefill.context.span_id for span in prunes)
    assert prefill.attributes[names.ATTR_SEGMENT_ROWS] == (14, 10, 6)
    before_after = [
        tuple(span.attributes[key] for key in (names.ATTR_PRUNE_LAYER, names.ATTR_TOKENS_BEFORE, names.ATTR_TOKENS_AFTER))
        for span in prunes
    ]
    assert before_after == [(2, 10, 6), (4, 6, 2)]
    assert decode.attributes[names.ATTR_COMPLETION_TOKENS] == 3
    for span in prunes:
        assert prefill.start_time <= span.start_time <= span.end_time <= prefill.end_time
    assert prefill.end_time == decode.start_time <= decode.end_time
