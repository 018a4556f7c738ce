"""One step of the sampler, on logits that a test makes up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from decoder_service.constraint.grammar import Grammar
from decoder_service.request import EngineRequest, Prompt, SampledToken, Sampling
from decoder_service.runner.sampler import Sampler
from decoder_service.runner.sampling_state import SamplingState


def state(*, prompt: Prompt | None = None, grammar: Grammar | None = None, **fields: Any) -> SamplingState:
    """Of a request with these fields of `Sampling`."""
    request = EngineRequest(
        request_id="r", prompt=prompt or Prompt((0,)), sampling=Sampling(max_new_tokens=64, **fields), grammar=grammar
    )
    return SamplingState(request)


def tokens(sampled: Sequence[SampledToken | Exception]) -> list[SampledToken]:
    """Of rows none of which failed."""
    failed = [one for one in sampled if isinstance(one, Exception)]
    assert not failed
    return [one for one in sampled if isinstance(one, SampledToken)]


def sample(logits: torch.Tensor, *states: SamplingState) -> list[SampledToken]:
    """By a sampler that has seen nothing before."""
    return tokens(Sampler().sample(logits, states))


def draws(count: int, logits: torch.Tensor, **fields: Any) -> list[int]:
    """So many steps of one request, each with the same logits."""
    own, sampler = state(**fields), Sampler()
    return [tokens(sampler.sample(logits[None], [own]))[0].token_id for _ in range(count)]


def ids_of(tokens: Sequence[SampledToken]) -> list[int]:
    """Their ids."""
    return [token.token_id for token in tokens]
