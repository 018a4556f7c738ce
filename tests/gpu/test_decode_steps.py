"""On a CUDA device: recorded decode steps are steps like others, and the host waits for tokens alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from decoder_service.language.base import LanguageModel
from decoder_service.request import Failure, Pruning
from decoder_service.runner import decode_graph
from decoder_service.runner.decode_graph import DecodeGraphs
from tests.gpu.engines import CUDA, FAMILIES, TOLERANCE, assert_same, engine_of, language, needs_pages, questions
from tests.support.engines import of_sample, run_all, tokens_of

pytestmark = pytest.mark.gpu
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By number of sequences, the recorded steps that ran."""
    ran: list[int] = []
    logits = DecodeGraphs.logits

    def counted(graphs: DecodeGraphs, parts: Any) -> torch.Tensor:
        ran.append(len(parts))
        return logits(graphs, parts)

    monkeypatch.setattr(DecodeGraphs, "logits", counted)
    return ran


def assert_recorded(model: LanguageModel) -> None:
    graphs = DecodeGraphs(model, engine_of(model, recorded=False)._runner._storage)
    graphs.prepare(most_sequences=3, most_rows=512)
    assert sorted(graphs._steps) == [1, 2, 3]
    assert all(run != step.logits for step, run in graphs._steps.values())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_steps_give_what_others_give(family: str, dtype: torch.dtype, replays: list[int]) -> None:
    model = language(family, dtype)
    needs_pages(model)
    assert_recorded(model)
    asked = [
        question
        for number, new in enumerate((5, 12, 9))
        for question in questions(model, (300, 30, 96), max_new_tokens=new)[number : number + 1]
    ]
    expected = run_all(engine_of(model, recorded=False), asked)
    assert not replays
    found = run_all(engine_of(model), asked)
    assert replays == [3] * 4 + [2] * 4 + [1] * 3
    for name, events in expected.items():
        assert_same(found[name], events, tolerance=TOLERANCE[dtype])


def test_samples_copy_their_last_block_and_go_on_in_recorded_steps(replays: list[int]) -> None:
    model = language("llava15", torch.float16)
    needs_pages(model)
    asked = questions(model, (30,), n=3, temperature=0.7, seed=5)
    expected, found = (run_all(engine_of(model, recorded=recorded), asked)["q0"] for recorded in (False, True))
    assert replays == [3] * 11
    for sample in range(3):
        assert_same(of_sample(found, sample), of_sample(expected, sample), tolerance=TOLERANCE[torch.float16])


@pytest.mark.parametrize("dtype", HALVES)
def test_together_is_alone(dtype: torch.dtype) -> None:
    model = language("llava15", dtype)
    asked = questions(model, (300, 30, 96, 270, 64, 65, 1, 128))
    together = run_all(engine_of(model), asked)
    for request in asked:
        alone = run_all(engine_of(model), [request])[request.request_id]
        assert_same(together[request.request_id], alone, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("pruned", [True, False])
def test_hot_is_cold(pruned: bool, dtype: torch.dtype) -> None:
    model = language("llava15", dtype)
    request = questions(model, (30, 600))[1] if not pruned else questions(model, (600,))[0]
    assert (request.pruning == Pruning()) is not pruned
    engine = engine_of(model)
    cold = run_all(engine, [request])[request.request_id]
    assert not engine.figures.reused_rows
    hot = run_all(engine, [request])[request.request_id]
    assert engine.figures.reused_rows >= 512
    assert_same(hot, cold, tolerance=TOLERANCE[dtype])


@contextmanager
def no_wait_but(monkeypatch: pytest.MonkeyPatch, *allowed: str) -> Iterator[dict[str, int]]:
    """Any wait for the device fails but in these methods of tensors; counts them."""
    waits = dict.fromkeys(allowed, 0)

    def waiting(name: str) -> Any:
        method = getattr(torch.Tensor, name)

        def call(tensor: torch.Tensor, *given: Any, **told: Any) -> Any:
            if not tensor.is_cuda:
                return method(tensor, *given, **told)
            waits[name] += 1
            torch.cuda.set_sync_debug_mode("default")
            try:
                return method(tensor, *given, **told)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        return call

    for name in allowed:
        monkeypatch.setattr(torch.Tensor, name, waiting(name), raising=False)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
        monkeypatch.undo()


SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"logprobs": 0},
    {"temperature": 0.8, "seed": 3},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 3},
    {"repetition_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.1},
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_step_waits_for_its_tokens_alone_and_a_ranking_for_its_scores(
    recorded: bool, family: str, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language(family, torch.bfloat16)
    if recorded:
        needs_pages(model)
    asked = questions(model, (96, 30), max_new_tokens=8, **sampling)
    engine = engine_of(model, recorded=recorded)
    run_all(engine_of(model, recorded=False), asked)  # libraries set themselves up
    with no_wait_but(monkeypatch, "tolist", "cpu") as waits:
        found = run_all(engine, asked)
    for events in found.values():
        assert not isinstance(events[-1], Failure), events[-1].error
        assert len(tokens_of(events)) == 8
    assert waits == {"tolist": 8, "cpu": 1}


def test_a_wait_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    number = torch.ones(1, device=CUDA)
    with no_wait_but(monkeypatch, "tolist"), pytest.raises(RuntimeError, match="synchron"):
        number.item()
    with no_wait_but(monkeypatch, "tolist") as waits:
        assert number.tolist() == [1.0]
    assert waits == {"tolist": 1}


def test_more_sequences_than_are_recorded_are_served(monkeypatch: pytest.MonkeyPatch, replays: list[int]) -> None:
    monkeypatch.setattr(decode_graph, "_MOST_RECORDED", 2)
    model = language("llava15", torch.float16)
    found = run_all(engine_of(model), questions(model, (30, 31, 32), max_new_tokens=4))
    assert not replays
    assert all(len(tokens_of(events)) == 4 for events in found.values())
