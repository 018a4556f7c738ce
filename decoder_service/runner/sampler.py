"""From logits to tokens, one sequence at a time or many."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from decoder_service.request import SampledToken, Sampling

# A GPU divides by multiplying with the inverse, and that of any smaller number is infinite.
_LEAST_TEMPERATURE = sys.float_info.min


class Sampler:
    """How one request chooses its tokens. Its random numbers are its own: company in a step changes nothing."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature == 0
        self.logprobs = sampling.logprobs
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """One token from `logits` [vocabulary]: temperature, then top-k, then top-p of what is left.

        The number drawn comes from the CPU and is looked up in the cumulative distribution: a seed means the same anywhere.
        """
        ordered, ids = _scaled(logits, self._sampling.temperature).sort(descending=True, stable=True)
        if self._sampling.top_k:
            ordered = ordered[: self._sampling.top_k]
        cumulative = ordered.softmax(dim=0).cumsum(dim=0)
        # The nucleus: tokens up to and including the first that reaches top_p.
        nucleus = int(torch.searchsorted(cumulative, min(self._sampling.top_p, float(cumulative[-1])))) + 1
        cumulative = cumulative[:nucleus]
        drawn = float(torch.rand((), generator=self._generator, dtype=torch.float64)) * float(cumulative[-1])
        place = int(torch.searchsorted(cumulative, drawn, right=True))
        return int(ids[min(place, cumulative.shape[0] - 1)])


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits over temperature, in float64, the largest at 0: however low the temperature, only the others get -inf."""
    exact = logits.double()
    return (exact - exact.max()) / max(temperature, _LEAST_TEMPERATURE)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[SampledToken]:
    """One token for each row of `logits` [rows, vocabulary], chosen by the row's sampler."""
    best = logits.argmax(dim=-1).tolist()
    chosen = [best[row] if sampler.greedy else sampler.draw(logits[row]) for row, sampler in enumerate(samplers)]
    return [
        _with_logprobs(token, logits[row], sampler.logprobs) if sampler.logprobs else SampledToken(token)
        for row, (token, sampler) in enumerate(zip(chosen, samplers, strict=True))
    ]


def _with_logprobs(token: int, logits: torch.Tensor, count: int) -> SampledToken:
    """Of the model's own distribution: before temperature, top-k and top-p."""
    logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return SampledToken(token, logprob=float(logprobs[token]), top=top)
