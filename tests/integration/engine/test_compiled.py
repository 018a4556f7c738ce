"""Layers that torch traces answer as others do. Not compiled, which takes minutes: `eager` runs what was traced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import Pruning
from decoder_service.runner.attention import leave_attention_uncompiled, register_attention
from tests.support.engines import ids_of, make_engine, run_all
from tests.support.language_models import PARITY, ask, lay_out, random_image
from vscan.checkpoint import Checkpoint
from vscan.specs import KeepTokens, Rater


@pytest.fixture
def tracing() -> Iterator[None]:
    leave_attention_uncompiled()
    yield
    register_attention()
    torch._dynamo.reset()


def test_traced_layers_answer_as_others_do(tracing: None) -> None:
    pruned = Pruning(layers=(3,), budgets=(KeepTokens(20),), rater=Rater.LAST_TOKEN)

    def answers(model: LanguageModel) -> list[list[int]]:
        asked = [
            ask(
                lay_out(
                    [[1, 9, 30], random_image(count, hidden=model.shape.hidden_size, seed=count), [7, 8, 40]],
                    placeholder=model.tokens.placeholder_id,
                ),
                max_new_tokens=3,
                pruning=pruned if count > 20 else Pruning(),
            )
            for count in (60, 12)
        ]
        events = run_all(make_engine(model, prune_layers=(3,)), asked)
        return [ids_of(events[request.request_id]) for request in asked]

    def loaded() -> LanguageModel:
        return load_language(Checkpoint.open(PARITY / "llava15"), dtype=torch.float64, device="cpu")

    traced = loaded()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    traced.compile(backend="eager")
    assert answers(traced) == answers(loaded())
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
