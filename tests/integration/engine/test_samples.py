"""Several samples of one request: one prefill, answers that are each what it would be alone, one end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from decoder_service.constraint.grammar import compile_grammar
from decoder_service.constraint.vocabulary import Vocabulary, make_vocabulary
from decoder_service.kv_cache.cache import Copy, pages_of_samples
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import Delta, EngineRequest, Event, Failure, FinishReason, Pruning, Result, SampleEnd
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.sequence import Piece
from decoder_service.sequence import Sequence as RunningSequence
from tests.support.engines import (
    WatchedRunner,
    add,
    assert_empty,
    ids_of,
    make_engine,
    make_runner,
    of_sample,
    only,
    run_all,
    text_of,
)
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.tokenizers import byte_level
from vscan.errors import Cancelled, DeadlineExceeded, InternalError, InvalidArgument
from vscan.rpc.deadlines import Deadline
from vscan.specs import JsonSchema, KeepTokens, Rater, Regex
from vscan.telemetry import names

PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(6), KeepTokens(2)), rater=Rater.LAST_TOKEN)
PROMPT_ROWS = (14, 10, 6)  # of `question`, in blocks of 4: 3 full ones and a half, 2 and a half, 1 and a half


@pytest.fixture(scope="module")
def model() -> Any:
    return random_language(dtype=torch.float64)


def question(picture: int = 0, **fields: Any) -> EngineRequest:
    image = random_image(10, hidden=32, seed=picture, dtype=torch.float64)
    drawn: dict[str, Any] = {"pruning": PRUNED, "temperature": 1.5, "seed": 5 + picture, "n": 4}
    return ask(lay_out([[1, 5], image, [9, 11 + picture]]), **(drawn | fields))


def expected_of(model: Any, request: EngineRequest) -> list[list[int]]:
    """Each sample's answer where it is the only one, in an engine of its own."""
    alone = [only(request, sample) for sample in range(request.sampling.n)]
    return [ids_of(run_all(make_engine(model), [one])[one.request_id]) for one in alone]


def least_pages(model: Any, request: EngineRequest) -> int:
    """Pages of a cache that could hold it if it were alone."""
    layout = make_engine(model)._cache.layout
    sequence = RunningSequence(request, layout.segments)
    return pages_of_samples(layout, sequence.most_rows(), sequence.prompt_rows, samples=sequence.samples)


def found_in(events: Sequence[Event], count: int) -> list[list[int]]:
    return [ids_of(of_sample(events, sample)) for sample in range(count)]


def test_the_prompt_runs_once_and_its_blocks_are_held_once(model: Any) -> None:
    runner = make_runner(model, WatchedRunner)
    engine, request = make_engine(runner=runner), question(max_new_tokens=3)
    add(engine, request)
    first = engine.step()
    assert [event.sample for _, event in first if isinstance(event, Delta)] == [0, 1, 2, 3]
    assert runner.rows == [*PROMPT_ROWS]
    assert [segment.blocks for segment in engine.figures.segments] == [4, 3, 2]
    assert engine.figures.running == 4
    engine.step()
    assert runner.rows == [rows + 4 for rows in PROMPT_ROWS]
    # The full blocks are still everybody's, and each has its own of the last one: the first three copied it.
    assert [segment.blocks for segment in engine.figures.segments] == [3 + 4, 2 + 4, 1 + 4]
    while not engine.idle:
        engine.step()
    assert runner.rows == [rows + 2 * 4 for rows in PROMPT_ROWS]
    assert runner.ranked == 2
    assert_empty(engine)


def test_every_sample_is_what_its_seed_gives_alone(model: Any) -> None:
    request = question(max_new_tokens=9, presence_penalty=0.5)
    engine = make_engine(model)
    events = run_all(engine, [request])[request.request_id]
    found = found_in(events, 4)
    assert found == expected_of(model, request)
    single = replace(request, request_id="single", sampling=replace(request.sampling, n=1))
    assert found[0] == ids_of(run_all(make_engine(model), [single])["single"])
    assert len(set(map(tuple, found))) == 4
    assert_empty(engine)


def test_greedy_samples_are_all_equal(model: Any) -> None:
    request = question(n=3, temperature=0.0)
    first, second, third = found_in(run_all(make_engine(model), [request])[request.request_id], 3)
    assert first == second == third


def test_the_stream_tells_which_sample_goes_on_and_when_each_ends(model: Any) -> None:
    plain = question(max_new_tokens=6)
    answers = expected_of(model, plain)
    stop = next(token for token in answers[2][1:5] if token not in answers[0])
    request = question(max_new_tokens=6, stop_token_ids=(stop,))
    engine = make_engine(model)
    events = run_all(engine, [request])[request.request_id]
    lengths = [ids.index(stop) + 1 if stop in ids else 6 for ids in answers]
    assert (lengths[0], lengths[2]) == (6, answers[2].index(stop) + 1)
    reasons = [FinishReason.STOP_TOKEN if stop in ids else FinishReason.LENGTH for ids in answers]
    assert [len(one) for one in found_in(events, 4)] == lengths
    for sample, reason in enumerate(reasons):
        told = [event.reason for event in of_sample(events, sample) if isinstance(event, Delta)]
        assert told == [None] * (len(told) - 1) + [reason]
    *deltas, result = events
    assert all(isinstance(event, Delta) for event in deltas)
    assert isinstance(result, Result)
    ends = zip(range(4), reasons, lengths, strict=True)
    assert result.samples == tuple(SampleEnd(*end) for end in ends)
    assert (result.reason, result.completion_tokens) == (FinishReason.LENGTH, sum(lengths))
    assert_empty(engine)


def test_what_ended_gives_its_place_and_its_blocks_back(model: Any) -> None:
    request = question(max_new_tokens=6)
    stop = expected_of(model, request)[3][0]
    engine = make_engine(model)
    add(engine, question(max_new_tokens=6, stop_token_ids=(stop,)))
    engine.step()
    assert engine.figures.running == 3
    while not engine.idle:
        engine.step()
    assert_empty(engine)


def test_all_samples_may_end_with_their_first_token(model: Any) -> None:
    request = question(max_new_tokens=1)
    engine = make_engine(model)
    events = run_all(engine, [request])[request.request_id]
    assert [event.sample for event in events if isinstance(event, Delta)] == [0, 1, 2, 3]
    assert isinstance(events[-1], Result)
    assert [end.completion_tokens for end in events[-1].samples] == [1] * 4
    assert_empty(engine)


def test_stop_strings_and_texts_are_each_samples_own(model: Any) -> None:
    request = question(max_new_tokens=5)
    events = run_all(make_engine(model), [request])[request.request_id]
    for sample, ids in enumerate(expected_of(model, request)):
        assert text_of(of_sample(events, sample)) == " ".join(f"w{token}" for token in ids)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_cancelling_ends_all_samples_once(model: Any, steps: int) -> None:
    engine = make_engine(model)
    gone, stays = add(engine, question(max_new_tokens=40)), add(engine, question(1, max_new_tokens=4))
    for _ in range(steps):
        engine.step()
    [(name, failure)] = engine.cancel(gone.request_id)
    assert (name, isinstance(failure, Failure) and type(failure.error)) == (gone.request_id, Cancelled)
    assert engine.cancel(gone.request_id) == []
    left: list[tuple[str, Event]] = []
    while not engine.idle:
        left += engine.step()
    assert {name for name, _ in left} == {stays.request_id}
    assert_empty(engine)


def test_a_deadline_ends_all_samples_once(model: Any) -> None:
    engine = make_engine(model)
    request = question(max_new_tokens=40)
    engine.add(replace(request, deadline=Deadline(time.monotonic() + 3600)), accepted_s=0.0)
    engine.step()
    engine._requests[request.request_id].asked = replace(request, deadline=Deadline(0.0))
    [(name, failure)] = engine.step()
    assert (name, isinstance(failure, Failure) and type(failure.error)) == (request.request_id, DeadlineExceeded)
    assert_empty(engine)


def test_what_fails_one_sample_fails_the_request_and_no_other(model: Any) -> None:
    request = question(max_new_tokens=12)
    other = question(3, max_new_tokens=12, n=2)
    first, second, third, fourth = expected_of(model, request)
    spoken = {token for ids in (first, second, fourth, *expected_of(model, other)) for token in ids}
    unspeakable = next(token for token in third[2:] if token not in spoken)

    def decode(ids: Sequence[int]) -> str:
        if unspeakable in ids:
            raise ValueError("no text")
        return "x" * len(ids)

    engine = make_engine(model, decode=decode)
    events = run_all(engine, [request, other])
    assert [type(event) for event in events[request.request_id]].count(Failure) == 1
    assert isinstance(events[request.request_id][-1], Failure)
    assert isinstance(events[other.request_id][-1], Result)
    assert_empty(engine)


class BreakingRunner(Runner):
    """Breaks in its third step."""

    steps = 0

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("secret")
        return super().run(pieces, copies)


def test_a_step_that_breaks_ends_the_request_once(model: Any) -> None:
    engine, request = make_engine(runner=make_runner(model, BreakingRunner)), question()
    events = run_all(engine, [request])[request.request_id]
    failures = [event for event in events if isinstance(event, Failure)]
    assert [type(failure.error) for failure in failures] == [InternalError]
    assert events[-1] is failures[0]
    assert_empty(engine)


@pytest.mark.parametrize("more_pages", [0, 8, 18])
def test_samples_that_are_preempted_come_back_each_by_itself(model: Any, more_pages: int) -> None:
    """Both fit alone, and not together: samples give way while others of the same request go on."""
    first, second = question(7, max_new_tokens=12, n=3), question(8, max_new_tokens=12, n=3)
    runner = make_runner(model, WatchedRunner, pages=least_pages(model, first) + more_pages)
    engine = make_engine(runner=runner, spare_blocks=0)
    events = run_all(engine, [first, second])
    assert engine.figures.preemptions > 0
    assert runner.again.keys() - {0}
    assert runner.ranked == 4
    for request in (first, second):
        assert found_in(events[request.request_id], 3) == expected_of(model, request)
        result = events[request.request_id][-1]
        assert isinstance(result, Result)
        assert [done.tokens_after for done in result.pruning] == [6, 2]
    assert_empty(engine)


def test_a_request_begins_when_there_are_places_for_all_its_samples(model: Any) -> None:
    engine = make_engine(model, max_running=4)
    one, many, last = question(max_new_tokens=3, n=1), question(1, max_new_tokens=2, n=4), question(2, max_new_tokens=2, n=1)
    begun: dict[str, int] = {}
    for request in (one, many, last):
        add(engine, request)
    for step in range(20):
        for name, _ in engine.step():
            begun.setdefault(name, step)
        assert engine.figures.running <= 4
    # Nobody passes it meanwhile, though there would be places.
    assert [begun[request.request_id] for request in (one, many, last)] == [0, 3, 5]
    assert_empty(engine)


def test_what_could_never_run_is_refused(model: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^sampling\.n: 4, limit 3 run at once"):
        make_engine(model, max_running=3).check(question())
    request = question(max_new_tokens=12)
    # Prompt and one answer take 7, 6 and 5 blocks; 3, 2 and 1 of them are full of the prompt, and shared.
    least = make_engine(model)._cache.layout.block_pages((3 + 4 * 4, 2 + 4 * 4, 1 + 4 * 4))
    make_engine(model, pages=least).check(request)
    with pytest.raises(InvalidArgument, match=r"^prompt: 14 tokens and 12 of each of 4 answers, limit 0 MiB of KV cache"):
        make_engine(model, pages=least - 1).check(request)


def test_there_is_one_span_of_the_prompt_and_one_of_all_answers(model: Any) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run_all(make_engine(model, tracer=provider.get_tracer("test")), [question(max_new_tokens=3)])
    spans = exporter.get_finished_spans()
    assert sorted(span.name for span in spans) == [
        names.SPAN_DECODE,
        names.SPAN_PREFILL,
        names.SPAN_PRUNE,
        names.SPAN_PRUNE,
    ]
    [decode] = [span for span in spans if span.name == names.SPAN_DECODE]
    assert decode.attributes[names.ATTR_COMPLETION_TOKENS] == 12


SCHEMA = JsonSchema(
    '{"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "array", "items": {"enum": [0, 1, 2]}, '
    '"minItems": 12, "maxItems": 20}}, "required": ["a", "b"], "additionalProperties": false}'
)


@pytest.fixture(scope="module")
def writer() -> tuple[Any, Vocabulary]:
    """A model that writes the bytes of a tokenizer, and its vocabulary."""
    tokenizer = byte_level().backend_tokenizer
    model = random_language(dtype=torch.float64, vocab_size=tokenizer.get_vocab_size())
    # The random model's own placeholder would be a brace.
    return model, make_vocabulary(tokenizer, SpecialTokens(4, frozenset({2}), frozenset({2, 4}), frozenset()))


@pytest.mark.parametrize("constraint", [SCHEMA, Regex("(ab|c){12,30}")])
def test_constraints_penalties_and_seeds_hold_across_preemption_and_company(
    writer: tuple[Any, Vocabulary], constraint: JsonSchema | Regex
) -> None:
    model, vocabulary = writer

    def constrained(picture: int, samples: int) -> EngineRequest:
        request = question(
            picture, max_new_tokens=100, n=samples, repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=-0.5
        )
        return replace(request, grammar=compile_grammar(constraint, vocabulary))

    asked = [constrained(1, 1), constrained(2, 3), question(3, max_new_tokens=60, n=2), constrained(4, 2)]
    engine = make_engine(model, pages=least_pages(model, asked[1]), max_running=8)
    events = run_all(engine, asked)
    assert engine.figures.preemptions > 0
    for request in asked:
        assert found_in(events[request.request_id], request.sampling.n) == expected_of(model, request)
        result = events[request.request_id][-1]
        assert isinstance(result, Result)
        if request.grammar is not None:
            assert any(end.reason is FinishReason.CONSTRAINT for end in result.samples)
    assert_empty(engine)
