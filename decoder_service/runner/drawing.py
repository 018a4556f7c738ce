"""Draws tokens: temperature, then min-p, then top-k, then top-p of what is left, then a number from the request's own seed."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Sequence

import torch

from decoder_service.request import Sampling
from vscan.transfer import to_device

# A GPU divides by multiplying with the inverse, and that of any smaller number is infinite.
_LEAST_TEMPERATURE = sys.float_info.min
_MANTISSA_BITS = 53
_LIKELIEST = 1024


def uniform(seed: int, number: int) -> float:
    """A number of [0, 1), for draw `number` of a request: the same on any machine, whatever was drawn before or beside it."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed, number), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> (64 - _MANTISSA_BITS)) * 2.0**-_MANTISSA_BITS


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one of a request's samples: by it each is the answer to a request for one. Sample 0 has the request's own."""
    if not sample:
        return seed
    digest = hashlib.blake2b(struct.pack("<QI", seed, sample), digest_size=8, person=b"sample").digest()
    return int.from_bytes(digest, "little")


class Drawing:
    """How some rows of a step draw. What a row draws depends on that row alone."""

    def __init__(self, samplings: Sequence[Sampling], *, vocabulary: int, device: torch.device) -> None:
        def column(values: Sequence[float]) -> torch.Tensor:
            return to_device(torch.tensor(values, dtype=torch.float64), device)[:, None]

        self._temperature = column([max(each.temperature, _LEAST_TEMPERATURE) for each in samplings])
        self._log_min_p = column([each.min_p for each in samplings]).log()  # min_p 0: -inf, which nothing is below
        cut = [row for row, each in enumerate(samplings) if each.top_k or each.top_p < 1]
        self._cut_rows = to_device(torch.tensor(cut, dtype=torch.int64), device)
        top_k = [min(samplings[row].top_k or vocabulary, vocabulary) for row in cut]
        self._cut = _Cut(top_k, column([samplings[row].top_p for row in cut]), vocabulary) if cut else None

    def draw(self, logits: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
        """A token for each row of `logits` [rows, vocabulary], float64, by its number of [0, 1)."""
        scaled = (logits - logits.amax(dim=-1, keepdim=True)) / self._temperature
        scaled.masked_fill_(scaled < self._log_min_p, -torch.inf)
        if self._cut:
            scaled[self._cut_rows] = self._cut.apply(scaled[self._cut_rows])
        numbers = to_device(torch.tensor(uniforms, dtype=torch.float64), logits.device)[:, None]
        return _pick(scaled.softmax(dim=-1), numbers)


class _Cut:
    """The k most likely tokens, and of those the first few that together reach top_p. Equals of the last one stay too.

    probabilities    .5   .3   .15   .05       top_p .7
    those before      0   .5   .8    .95       below top_p: the first two; the least likely that stays has .3
    """

    def __init__(self, top_k: Sequence[int], top_p: torch.Tensor, vocabulary: int) -> None:
        self._top_p = top_p
        self._last = to_device(torch.tensor(top_k, dtype=torch.int64), top_p.device)[:, None] - 1
        # The likeliest tokens are found without ordering all of them, as far as that is enough: for top_p it shows.
        shortest = max([_LIKELIEST, *(k for k in top_k if k < vocabulary)])
        self._likeliest = min(shortest, vocabulary)
        self._open = to_device(torch.tensor([[k > self._likeliest] for k in top_k]), top_p.device)
        # Whether looking at the likeliest is enough for all of them, whatever their numbers.
        self._is_enough = max(top_k) <= self._likeliest

    def apply(self, scaled: torch.Tensor) -> torch.Tensor:
        """`scaled` [rows, vocabulary] with -inf for all others."""
        least, is_sure = self._least(scaled, scaled.topk(self._likeliest, dim=-1).values)
        if not is_sure:
            least, _ = self._least(scaled, scaled.sort(dim=-1, descending=True).values)
        return scaled.masked_fill(scaled < least, -torch.inf)

    def _least(self, scaled: torch.Tensor, ordered: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The last of `ordered` that stays in each row, [rows, 1], and whether they reach far enough to tell."""
        least = ordered.gather(-1, self._last.clamp(max=ordered.shape[-1] - 1))
        least = least.masked_fill(self._last >= ordered.shape[-1], -torch.inf)
        whole = scaled.masked_fill(scaled < least, -torch.inf).logsumexp(dim=-1, keepdim=True)
        probabilities = (ordered.masked_fill(ordered < least, -torch.inf) - whole).exp()
        reached = probabilities.cumsum(dim=-1)
        within = reached - probabilities < self._top_p
        least = torch.maximum(least, ordered.masked_fill(~within, torch.inf).amin(dim=-1, keepdim=True))
        if self._is_enough or ordered.shape[-1] == scaled.shape[-1]:
            return least, True
        # Here the host waits for the device, a little before it reads the tokens: ordering them all takes longer.
        return least, not bool((self._open & (reached[:, -1:] < self._top_p)).any())


def _pick(probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """For each row the place where the cumulative sum goes beyond its number's share of the whole: none of probability 0."""
    cumulative = probabilities.cumsum(dim=-1)
    whole = cumulative[:, -1:]
    share = torch.minimum(numbers * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    # A row that is no distribution (NaN) must not name a token that is not there: the step after would fail for all in it.
    return torch.searchsorted(cumulative, share, right=True)[:, 0].clamp(max=probabilities.shape[-1] - 1)
