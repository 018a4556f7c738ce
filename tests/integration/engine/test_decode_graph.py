"""Steps on fixed tensors, as they are recorded on a GPU; here they run as they are, over a kernel written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from decoder_service.engine import Engine
from decoder_service.language.base import LanguageModel
from decoder_service.request import Pruning
from decoder_service.runner import decode_graph, varlen
from decoder_service.runner.batch import Part
from decoder_service.runner.decode_graph import DecodeStep
from tests.support.engines import ids_of, make_engine, of_sample, run_all, tokens_of
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.varlen import plain_varlen
from vscan.specs import KeepTokens, Rater


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "_KERNEL", plain_varlen)
    monkeypatch.setattr(varlen, "serves", lambda device, dtype: True)
    monkeypatch.setattr(varlen, "pages_serve", lambda storage, dtype: True)


def prepared(model: LanguageModel, **made: Any) -> Engine:
    engine = make_engine(model, **made)
    engine.prepare()
    return engine


@pytest.mark.parametrize("prune_layers", [(), (3,), (2, 4)])
def test_answers_are_those_of_other_steps(prune_layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_language(dtype=torch.float64)

    def requests() -> list[Any]:
        made = []
        for number, new in enumerate((3, 9, 5, 7)):
            image = random_image(9, hidden=32, seed=number, dtype=torch.float64)
            layers = prune_layers if number else ()
            budgets = (KeepTokens(5), KeepTokens(2))[: len(layers)]
            pruning = Pruning(layers=layers, budgets=budgets, rater=Rater.LAST_TOKEN) if layers else Pruning()
            prompt = lay_out([[1, 5], image, [9, 11 + number]])
            made.append(ask(prompt, name=f"q{number}", max_new_tokens=new, pruning=pruning, logprobs=1))
        return made

    expected = run_all(make_engine(model, prune_layers=prune_layers), requests())
    counts: list[int] = []
    as_on_a_gpu(monkeypatch)
    fill = DecodeStep.fill

    def counting_fill(step: DecodeStep, parts: Sequence[Part]) -> None:
        counts.append(len(parts))
        fill(step, parts)

    monkeypatch.setattr(DecodeStep, "fill", counting_fill)
    found = run_all(prepared(model, prune_layers=prune_layers), requests())
    assert counts == [4, 4, 3, 3, 2, 2, 1, 1]
    for name, events in expected.items():
        assert ids_of(found[name]) == ids_of(events)
        for one, other in zip(tokens_of(found[name]), tokens_of(events), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


def test_samples_decode_in_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_language(dtype=torch.float64)
    pruning = Pruning(layers=(2, 4), budgets=(KeepTokens(5), KeepTokens(2)), rater=Rater.LAST_TOKEN)
    prompt = lay_out([[1, 5], random_image(9, hidden=32, seed=1, dtype=torch.float64), [9, 11]])
    request = ask(prompt, max_new_tokens=9, pruning=pruning, logprobs=1, temperature=1.3, seed=4, n=3)
    expected = run_all(make_engine(model), [request])[request.request_id]
    as_on_a_gpu(monkeypatch)
    found = run_all(prepared(model), [request])[request.request_id]
    for sample in range(3):
        one, other = of_sample(found, sample), of_sample(expected, sample)
        assert ids_of(one) == ids_of(other)
        assert [token.logprob for token in tokens_of(one)] == pytest.approx(
            [token.logprob for token in tokens_of(other)], abs=1e-9
        )


def test_rows_of_an_answer_that_run_again_are_no_decode_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a step, as decode rows are, but not the last one."""
    model = random_language(dtype=torch.float64)
    request = ask(lay_out([[1, 5, 6]]), max_new_tokens=12, logprobs=1)
    expected = run_all(make_engine(model), [request])[request.request_id]
    as_on_a_gpu(monkeypatch)
    engine = make_engine(model, max_running=1, max_step_rows=1, reuse=False)
    engine.add(request, accepted_s=0.0)
    outcomes = [outcome for _ in range(8) for outcome in engine.step()]
    engine._scheduler._preempt(engine._scheduler._running[request.request_id])
    while not engine.idle:
        outcomes += engine.step()
    found = [event for _, event in outcomes]
    assert ids_of(found) == ids_of(expected)
    for one, other in zip(tokens_of(found), tokens_of(expected), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


def test_a_step_that_cannot_be_recorded_is_run_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_language(dtype=torch.float64)
    request = ask(lay_out([[1, 5, 7]]), max_new_tokens=5)
    expected = run_all(make_engine(model), [request])
    as_on_a_gpu(monkeypatch)

    def fails(step: DecodeStep) -> torch.Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    def recorded(work: Any) -> Any:
        work()

    monkeypatch.setattr(decode_graph, "_as_it_is", recorded)
    monkeypatch.setattr(DecodeStep, "logits", fails)
    assert ids_of(run_all(prepared(model), [request])[request.request_id]) == ids_of(expected[request.request_id])


def test_a_first_run_of_a_step_leaves_nothing_that_answers_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """What recording writes lies in a page that is given to the first sequence."""
    model = random_language(dtype=torch.float64)
    requests = [ask(lay_out([[1, 5, 7 + number]]), name=f"q{number}", max_new_tokens=5) for number in range(2)]
    expected = run_all(make_engine(model), requests)
    as_on_a_gpu(monkeypatch)

    def recorded(work: Any) -> Any:
        work()
        return work

    monkeypatch.setattr(decode_graph, "_as_it_is", recorded)
    found = run_all(prepared(model), requests)
    for name, events in expected.items():
        assert ids_of(found[name]) == ids_of(events)
