"""Engines on a CUDA device, and when two answers are the same within half precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from decoder_service.engine import Engine
from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import EngineRequest, Event, Pruning
from decoder_service.runner.varlen import block_rows, reads_pages
from tests.support.engines import make_engine, tokens_of
from tests.support.language_models import PARITY, ask, lay_out, random_image
from vscan.checkpoint import Checkpoint
from vscan.specs import KeepTokens, Rater

CUDA = torch.device("cuda", 0)
PRUNE_LAYERS = (2,)  # segments of 2 and 4 layers: one group and two
PRUNED = Pruning(layers=PRUNE_LAYERS, budgets=(KeepTokens(40),), rater=Rater.LAST_TOKEN)
# Of log-probabilities. float16 has 11 bits and bfloat16 8, of logits up to 8.
TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.3}
FAMILIES = ("llava15", "qwen25vl")  # as many heads of keys as of queries and one axis; half as many and three


@cache
def language(family: str, dtype: torch.dtype) -> LanguageModel:
    return load_language(Checkpoint.open(PARITY / family), dtype=dtype, device=CUDA)


def own_block_rows(model: LanguageModel) -> int:
    return block_rows(model.kv_shape, model.dtype, model.device)


def needs_pages(model: LanguageModel) -> None:
    """Skips where the kernel of this torch release reads none: there nothing is recorded."""
    if not reads_pages(own_block_rows(model), model.kv_shape, model.dtype, model.device):
        pytest.skip(f"the kernel of torch {torch.__version__} reads no pages here")


def engine_of(model: LanguageModel, *, recorded: bool = True, rows: int | None = None, **limits: Any) -> Engine:
    """With blocks as the service would have them, unless told."""
    rows = rows or own_block_rows(model)
    engine = make_engine(model, prune_layers=PRUNE_LAYERS, block_rows=rows, pages=max(64, 16_384 // rows), **limits)
    if recorded:
        engine.prepare()
    return engine


def questions(model: LanguageModel, counts: Sequence[int], **asked: Any) -> list[EngineRequest]:
    """One for each number of visual tokens, every second one pruned."""
    stated: dict[str, Any] = {"max_new_tokens": 12, "logprobs": 20} | asked
    made = []
    for number, count in enumerate(counts):
        image = random_image(count, hidden=model.shape.hidden_size, seed=count)
        prompt = lay_out([[1, 9, 30], image, [7, 8, 40 + number]], placeholder=model.tokens.placeholder_id)
        made.append(ask(prompt, name=f"q{number}", pruning=Pruning() if number % 2 else PRUNED, **stated))
    return made


def assert_same(ours: Sequence[Event], theirs: Sequence[Event], *, tolerance: float) -> None:
    """Token by token, until one chose the one and the other the other of two that are as likely."""
    assert len(tokens_of(ours)) == len(tokens_of(theirs)) > 0, (ours[-1], theirs[-1])
    for one, other in zip(tokens_of(ours), tokens_of(theirs), strict=True):
        here, there = dict(one.top), dict(other.top)
        shared = here.keys() & there.keys()
        assert len(shared) >= 10
        assert max(abs(here[token] - there[token]) for token in shared) < tolerance
        if one.token_id != other.token_id:
            assert here[one.token_id] - here[other.token_id] < tolerance
            return
