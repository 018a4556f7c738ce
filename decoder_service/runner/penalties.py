"""Penalties on tokens that were there before.

For a token with logit z that is n times in the answer so far:

    repetition r    z > 0: z / r      z <= 0: z * r     where the token is in the prompt's text or in the answer
    frequency  f    z - n * f
    presence   p    z - p                               where n > 0

Repetition as Keskar et al. (CTRL, arXiv 1909.05858) have it, the other two as in OpenAI's API; in this order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from decoder_service.request import Prompt, Sampling
from vscan.transfer import to_device


class SeenTokens:
    """Which tokens one sequence has read and said, on the CPU. Owned by the engine's thread.

    prompt 7 3 7 ▢ ▢      answer 9 3 9       ▢ visual rows: they never count
    ids    3 7 9
    said   1 0 2
    """

    def __init__(self, prompt: Prompt, *, max_new_tokens: int) -> None:
        asked = _text_ids(prompt)
        self._ids = np.zeros(len(asked) + max_new_tokens, dtype=np.int64)
        self._ids[: len(asked)] = asked
        self._said = np.zeros_like(self._ids)
        self._place = {token: place for place, token in enumerate(asked)}

    @property
    def ids(self) -> NDArray[np.int64]:
        """Each once."""
        return self._ids[: len(self._place)]

    @property
    def said(self) -> NDArray[np.int64]:
        """How often each of `ids` is in the answer."""
        return self._said[: len(self._place)]

    def add(self, token_id: int) -> None:
        """The answer goes on by a token."""
        place = self._place.setdefault(token_id, len(self._place))
        self._ids[place] = token_id
        self._said[place] += 1


class Penalties:
    """Those of some rows of a step. The work is by the tokens that were seen, not by the vocabulary."""

    def __init__(self, samplings: Sequence[Sampling], seen: Sequence[SeenTokens], device: torch.device) -> None:
        self._seen = seen
        terms = [(each.repetition_penalty, each.frequency_penalty, each.presence_penalty) for each in samplings]
        self._terms = to_device(torch.tensor(terms, dtype=torch.float64), device).T  # [3, rows]

    def apply(self, logits: torch.Tensor, places: torch.Tensor) -> None:
        """Changes the rows at `places` of `logits` [rows, vocabulary], float64."""
        owners = np.repeat(np.arange(len(self._seen)), [len(each.ids) for each in self._seen])
        ids, said = (np.concatenate(arrays) for arrays in zip(*((each.ids, each.said) for each in self._seen), strict=True))
        owner, token, times = to_device(torch.from_numpy(np.stack([owners, ids, said])), logits.device)
        repetition, frequency, presence = self._terms[:, owner]
        where = (places[owner], token)
        seen = logits[where]
        seen = torch.where(seen > 0, seen / repetition, seen * repetition)
        logits[where] = seen - times * frequency - (times > 0) * presence


def _text_ids(prompt: Prompt) -> list[int]:
    """The prompt's ids but for those that stand for visual rows."""
    visual = {row for span in prompt.spans for row in range(span.start, span.start + span.count)}
    return sorted({token for row, token in enumerate(prompt.token_ids) if row not in visual})
