"""On a CUDA device: the variable-length kernel gives what the CPU gives, within half precision. Run with `pytest -m gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from decoder_service.language.registry import load_language
from decoder_service.request import Pruning
from decoder_service.runner.varlen import serves
from tests.support.engines import make_engine, run_all, tokens_of
from tests.support.language_models import PARITY, PLACEHOLDER, ask, lay_out, random_image
from vscan.checkpoint import Checkpoint
from vscan.specs import KeepTokens, Rater

pytestmark = pytest.mark.gpu
PRUNED = Pruning(layers=(3,), budgets=(KeepTokens(64),), rater=Rater.LAST_TOKEN)


def first_logprobs(device: str, dtype: torch.dtype) -> list[dict[int, float]]:
    """The most likely first tokens of three prompts that are run in one packed step."""
    model = load_language(Checkpoint.open(PARITY / "llava15"), dtype=dtype, device=device)
    asked: list[Any] = [
        ask(
            lay_out([[1, 9, 30], random_image(count, hidden=64, seed=count), [7, 8, 40 + count % 50]], placeholder=PLACEHOLDER),
            max_new_tokens=4,
            logprobs=20,
            pruning=pruning,
        )
        for count, pruning in ((96, PRUNED), (30, Pruning()), (200, PRUNED))
    ]
    events = run_all(make_engine(model, prune_layers=(3,)), asked)
    return [dict(tokens_of(events[request.request_id])[0].top) for request in asked]


def test_the_kernel_is_there() -> None:
    assert serves(torch.device("cuda"), torch.float16)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-3), (torch.float16, 0.2)])
def test_log_probabilities_agree_with_the_cpu(dtype: torch.dtype, tolerance: float) -> None:
    for ours, theirs in zip(first_logprobs("cuda", dtype), first_logprobs("cpu", torch.float32), strict=True):
        shared = ours.keys() & theirs.keys()
        assert len(shared) >= 10
        assert all(abs(ours[token] - theirs[token]) < tolerance for token in shared)
