"""A fault of one request is its own: its neighbours' answers are what they are without it, to the last bit if they run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, Event, Failure, Pruning, Result
from decoder_service.runner.runner import Runner
from decoder_service.runner.sampler import Sampler, _Logprobs
from tests.support.engines import make_engine, make_runner, run_unchecked, tokens_of
from tests.support.language_models import ask, lay_out, random_image, random_language, visual_tokens
from vscan.errors import InternalError, ResourceExhausted
from vscan.specs import KeepTokens, Rater

PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(6), KeepTokens(2)), rater=Rater.LAST_TOKEN)
POISON = 60  # a token whose embedding is NaN, or that the model cannot embed
VICTIM = "victim"


def question(picture: int = 0, *, words: Sequence[int] = (9, 11), **fields: Any) -> EngineRequest:
    image = random_image(10, hidden=32, seed=picture, dtype=torch.float64)
    stated: dict[str, Any] = {"pruning": PRUNED, "logprobs": 3} | fields
    return ask(lay_out([[1, 5], image, [*words, 11 + picture]]), **stated)


def neighbours() -> list[EngineRequest]:
    """Of all kinds: greedy, drawn, penalised, pruned or not, of one sample or several."""
    return [
        question(1, name="greedy"),
        question(2, name="drawn", temperature=1.2, top_p=0.9, seed=5),
        question(3, name="penalised", repetition_penalty=1.3, presence_penalty=0.5),
        question(4, name="whole", pruning=Pruning()),
        question(5, name="several", temperature=1.1, seed=8, n=3),
    ]


def as_they_are(events: dict[str, list[Event]]) -> dict[str, Any]:
    """All that can be compared of answers."""
    kept = {name: [e.pruning for e in each if isinstance(e, Result)] for name, each in events.items()}
    return {name: (tokens_of(each), kept[name]) for name, each in events.items()}


def failure_of(events: Sequence[Event]) -> Exception:
    assert [type(event) for event in events[-1:]] == [Failure]
    assert not any(isinstance(event, Failure) for event in events[:-1])
    assert isinstance(events[-1], Failure)
    return events[-1].error


def run_with(model: LanguageModel, victim: EngineRequest | None, **fields: Any) -> dict[str, list[Event]]:
    """The neighbours, and the victim in the midst of them, if there is one; in a new engine."""
    engine, requests = make_engine(model, **fields), neighbours()
    if victim is not None:
        requests.insert(2, victim)
    return run_unchecked(engine, requests)


def poisoned_language(**fields: Any) -> LanguageModel:
    model = random_language(**fields)
    model._decoder.embed_tokens.weight[POISON] = torch.nan
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_visual_tokens_that_are_no_numbers_are_refused(value: float) -> None:
    engine = make_engine(random_language())
    rows = torch.zeros((4, 32))
    rows[2, 7] = value
    prompt = lay_out([[1], random_image(3, hidden=32, seed=1), visual_tokens(rows), [2]])
    with pytest.raises(InternalError, match="no numbers of this model"):
        engine.check(ask(prompt))


def test_visual_tokens_beyond_the_models_numbers_are_refused() -> None:
    engine = make_engine(random_language(dtype=torch.float16))
    fits, beyond = (visual_tokens(torch.full((4, 32), value, dtype=torch.bfloat16)) for value in (6e4, 7e4))
    engine.check(ask(lay_out([[1], fits, [2]])))
    with pytest.raises(InternalError, match="no numbers of this model"):
        engine.check(ask(lay_out([[1], beyond, [2]])))


def companion(**fields: Any) -> EngineRequest:
    """As many rows as a victim has, and gone as soon."""
    return question(7, name=VICTIM, max_new_tokens=1, **fields)


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.0}, {"repetition_penalty": 1.5, "logprobs": 0}])
def test_a_row_without_numbers_ends_its_own_request_and_changes_no_bit_of_others(fields: dict[str, Any]) -> None:
    model = poisoned_language()
    events = run_with(model, question(7, words=(POISON, 9), name=VICTIM, pruning=Pruning(), **fields))
    error = failure_of(events.pop(VICTIM))
    assert isinstance(error, InternalError)
    assert "logits for this request are not finite" in str(error)
    beside_a_good_row = run_with(model, companion(pruning=Pruning(), **fields))
    del beside_a_good_row[VICTIM]
    assert as_they_are(events) == as_they_are(beside_a_good_row)


def test_scores_without_numbers_rank_nothing_and_end_their_own_request() -> None:
    model = poisoned_language(dtype=torch.float64)
    events = run_with(model, question(7, words=(POISON, 9), name=VICTIM))
    error = failure_of(events.pop(VICTIM))
    assert isinstance(error, InternalError)
    assert "scores" in str(error)
    assert_alike(events, run_with(model, None))


def test_an_overflow_of_half_precision_is_told_as_such() -> None:
    model = random_language(dtype=torch.float16)
    model._decoder.layers[1].mlp.down_proj.weight *= 1e4
    victim = ask(lay_out([[1, 5, 7]]), name=VICTIM)
    assert isinstance(failure_of(run_unchecked(make_engine(model), [victim])[VICTIM]), InternalError)


def assert_alike(events: dict[str, list[Event]], expected: dict[str, list[Event]]) -> None:
    """As the engine promises it in float64, whoever runs with whom."""
    assert events.keys() == expected.keys()
    found, wanted = as_they_are(events), as_they_are(expected)
    for name, (tokens, pruning) in wanted.items():
        assert [token.token_id for token in found[name][0]] == [token.token_id for token in tokens]
        assert found[name][1] == pruning
        for one, other in zip(found[name][0], tokens, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


class FlukeLanguage(LanguageModel):
    """Once makes NaN of all rows of a step, as a broken device may."""

    flukes = 1

    def walk(self, segment: Segment, hidden: torch.Tensor, *rest: Any, **fields: Any) -> torch.Tensor:
        if self.flukes:
            self.flukes -= 1
            hidden = hidden * torch.nan
        return super().walk(segment, hidden, *rest, **fields)


@pytest.mark.parametrize("max_step_rows", [300, 8])
def test_rows_without_numbers_are_found_by_nobody(max_step_rows: int) -> None:
    """In one piece, and in pieces, where it comes out only with the last of them and a second prompt has begun by then."""
    model = random_language(dtype=torch.float64)
    spoilt, good, later = (question(7, pruning=Pruning(), name=name) for name in ("spoilt", "good", "later"))
    expected = run_unchecked(make_engine(model), [good])["good"]
    engine = make_engine(of_kind(model, FlukeLanguage), max_step_rows=max_step_rows)
    engine.add(spoilt, accepted_s=0.0)
    outcomes = engine.step()
    engine.add(good, accepted_s=0.0)
    while not engine.idle:
        outcomes += engine.step()
    found = {name: [event for who, event in outcomes if who == name] for name in ("spoilt", "good")}
    assert isinstance(failure_of(found["spoilt"]), InternalError)
    found["later"] = run_unchecked(engine, [later])["later"]
    for name in ("good", "later"):
        assert_alike({name: found[name]}, {name: expected})


def of_kind(model: LanguageModel, kind: type[LanguageModel]) -> Any:
    """The same weights, with the faults of `kind`."""
    other = kind.__new__(kind)
    other.__dict__.update(model.__dict__)
    return other


class FaultyLanguage(LanguageModel):
    """Fails in the way that a test sets, when the poison is among the ids of a step."""

    def fault(self) -> None:
        raise RuntimeError("secret inner text")

    def embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        if POISON in token_ids:
            self.fault()
        return super().embed(token_ids)


def test_what_fails_for_nobody_in_particular_fails_for_who_fails_alone() -> None:
    model = random_language(dtype=torch.float64)
    events = run_with(of_kind(model, FaultyLanguage), question(7, words=(POISON, 9), name=VICTIM))
    error = failure_of(events.pop(VICTIM))
    assert isinstance(error, InternalError)
    assert "secret" not in str(error)
    assert_alike(events, run_with(model, None))


def test_one_that_is_too_large_for_the_memory_asks_to_come_back() -> None:
    model = of_kind(random_language(), FaultyLanguage)
    model.fault = lambda: torch.empty(2**55)
    events = run_with(model, question(7, words=(POISON, 9), name=VICTIM))
    error = failure_of(events.pop(VICTIM))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_delay_ms > 0
    assert all(isinstance(each[-1], Result) for each in events.values())


class CrowdedLanguage(LanguageModel):
    """Has no memory for the rows of several sequences in a step's last segment: behind all rankings."""

    attempts = 0

    def walk(self, segment: Segment, hidden: torch.Tensor, places: torch.Tensor, plan: Any, *, last: bool) -> torch.Tensor:
        asked = plan.last_rows()
        if last and (hidden.shape[0] if isinstance(asked, slice) else len(asked)) > 1:
            self.attempts += 1
            torch.empty(2**55)
        return super().walk(segment, hidden, places, plan, last=last)


def test_who_does_not_fit_into_memory_together_runs_alone() -> None:
    """Also what a first attempt had ranked already is told in the result."""
    model = random_language(dtype=torch.float64)
    crowded = of_kind(model, CrowdedLanguage)
    events = run_with(crowded, None)
    assert crowded.attempts > 0
    assert_alike(events, run_with(model, None))


class ForgetfulSampler(Sampler):
    """Fails after all was chosen, as often as more is sampled than one request's three samples."""

    def sample(self, logits: torch.Tensor, states: Sequence[Any]) -> Any:
        if len(states) > 3:
            self._plan_for(list(states), logits).logprobs = NoLogprobs({}, logits.device)
        return super().sample(logits, states)


class NoLogprobs(_Logprobs):
    def add_to(self, *_: Any) -> Any:
        raise RuntimeError("no log-probabilities")


def test_a_step_that_runs_again_draws_and_counts_no_token_twice() -> None:
    model = random_language(dtype=torch.float64)
    runner = make_runner(model, Runner)
    runner._sampler = ForgetfulSampler()
    events = run_unchecked(make_engine(model, runner=runner), neighbours())
    assert_alike(events, run_with(model, None))


class LostPicture(Exception):
    pass


class UnrankableLanguage(LanguageModel):
    """Cannot rank prompts of 16 rows."""

    def score_projections(self, layer: int, rows: torch.Tensor, *rest: Any) -> Any:
        if rows.shape[0] == 16:
            raise LostPicture("in the midst of ranking")
        return super().score_projections(layer, rows, *rest)


class NoGrammar:
    """Not one that an answer can begin."""

    def walk(self, **_: Any) -> Any:
        raise RuntimeError("no walk")


class StuckGrammar:
    """One whose answer breaks with its first token."""

    complete = False
    problem = None

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def walk(self, **_: Any) -> Any:
        return self

    def take(self, token_id: int) -> None:
        raise RuntimeError("no way on")


def all_tokens() -> Any:
    return torch.full((8,), 255, dtype=torch.uint8).numpy()


def no_tokens() -> Any:
    return torch.zeros(8, dtype=torch.uint8).numpy()


OWN_FAULTS: dict[str, Callable[[], EngineRequest]] = {
    "ranking": lambda: question(7, words=(9, 9, 9), name=VICTIM),
    "a penalty without bounds": lambda: question(7, name=VICTIM, repetition_penalty=1e-310, temperature=1.0),
    "beginning": lambda: replace(question(7, name=VICTIM), grammar=NoGrammar()),  # type: ignore[arg-type]
    "going on": lambda: replace(question(7, name=VICTIM), grammar=StuckGrammar(all_tokens())),  # type: ignore[arg-type]
    "nothing may come": lambda: replace(question(7, name=VICTIM), grammar=StuckGrammar(no_tokens())),  # type: ignore[arg-type]
    "drawn from nothing": lambda: replace(
        question(7, name=VICTIM, temperature=1.0),
        grammar=StuckGrammar(no_tokens()),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("kind", OWN_FAULTS)
def test_work_for_one_request_fails_for_that_request(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = random_language(dtype=torch.float64)
    events = run_with(of_kind(model, UnrankableLanguage), OWN_FAULTS[kind]())
    assert isinstance(failure_of(events.pop(VICTIM)), InternalError)
    assert_alike(events, run_with(model, None))
    assert "alone" not in caplog.text  # nobody ran twice


def test_everybody_gets_an_error_of_their_own() -> None:
    engine = make_engine(random_language())
    for request in neighbours():
        engine.add(request, accepted_s=0.0)
    engine.step()
    errors = [event.error for _, event in engine.end_all(InternalError("over")) if isinstance(event, Failure)]
    assert len({id(error) for error in errors}) == len(errors) == len(neighbours())
    assert {str(error) for error in errors} == {"over"}
