"""From logits to tokens, for all rows of a step at once.

rows         0 greedy   1 drawn   2 greedy, JSON   3 greedy      argmax of all, then rows 1 and 2 apart:
adjusted     1 drawn   2 greedy, JSON                            constraint, penalties, then argmax or a draw
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from decoder_service.constraint.vocabulary import TokenMask
from decoder_service.request import SampledToken
from decoder_service.runner.drawing import Drawing
from decoder_service.runner.penalties import Penalties
from decoder_service.runner.sampling_state import SamplingState


class Sampler:
    """Owned by the engine's thread. What a row gets depends on that row and its state alone, whatever else is in the step."""

    def __init__(self) -> None:
        self._states: list[SamplingState] = []
        self._plan: _Plan | None = None  # of `_states`: made anew only when other sequences are in the step

    def sample(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> list[SampledToken]:
        """One token for each row of `logits` [rows, vocabulary], and on with each row's state.

        Log-probabilities are of the model's own distribution: of `logits` as they are.
        """
        plan = self._plan_for(list(states), logits)
        chosen = logits.argmax(dim=-1)
        if plan.special:
            chosen[plan.rows] = plan.choose(logits[plan.rows].double())
        tokens = [SampledToken(token) for token in chosen.tolist()]
        for row, state in zip(plan.special, plan.special_states, strict=True):
            state.take(tokens[row].token_id)
            if state.walk is not None:
                tokens[row] = replace(tokens[row], complete=state.walk.complete, problem=state.walk.problem)
        return plan.logprobs.add_to(tokens, logits) if plan.logprobs else tokens

    def _plan_for(self, states: list[SamplingState], logits: torch.Tensor) -> _Plan:
        if self._plan is None or states != self._states:
            self._states, self._plan = states, _Plan(states, logits)
        return self._plan


class _Plan:
    """What is to be done for the rows of a step, its numbers on the device."""

    def __init__(self, states: Sequence[SamplingState], logits: torch.Tensor) -> None:
        device, vocabulary = logits.device, logits.shape[-1]
        self.special = [row for row, state in enumerate(states) if not state.plain]
        self.special_states = special = [states[row] for row in self.special]
        self.rows = _places(self.special, device)
        self._walks = [state.walk for state in special if state.walk is not None]
        self._constrained = _places([place for place, state in enumerate(special) if state.walk is not None], device)
        penalised = [place for place, state in enumerate(special) if state.seen is not None]
        self._penalised = _places(penalised, device)
        self._penalties = _penalties([special[place] for place in penalised], device) if penalised else None
        drawn = [place for place, state in enumerate(special) if state.draws]
        self._drawing_states = [special[place] for place in drawn]
        self._drawn = _places(drawn, device)
        samplings = [state.sampling for state in self._drawing_states]
        self._drawing = Drawing(samplings, vocabulary=vocabulary, device=device) if drawn else None
        self.logprobs = _Logprobs.of(states, device)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """The tokens of the special rows; `logits` are theirs, and are overwritten."""
        if self._walks:
            allowed = unpack_masks([walk.mask for walk in self._walks], logits.shape[-1], logits.device)
            logits[self._constrained] = logits[self._constrained].masked_fill(~allowed, -torch.inf)
        if self._penalties:
            self._penalties.apply(logits, self._penalised)
        chosen = logits.argmax(dim=-1)
        if self._drawing:
            numbers = [state.next_number() for state in self._drawing_states]
            chosen[self._drawn] = self._drawing.draw(logits[self._drawn], numbers)
        return chosen


class _Logprobs:
    """The log-probabilities that some rows ask for."""

    def __init__(self, counts: dict[int, int], device: torch.device) -> None:
        self._counts = counts  # row → how many
        self._rows = _places(list(counts), device)

    @classmethod
    def of(cls, states: Sequence[SamplingState], device: torch.device) -> _Logprobs | None:
        counts = {row: state.sampling.logprobs for row, state in enumerate(states) if state.sampling.logprobs}
        return cls(counts, device) if counts else None

    def add_to(self, tokens: list[SampledToken], logits: torch.Tensor) -> list[SampledToken]:
        own = logits[self._rows].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        chosen = torch.tensor([tokens[row].token_id for row in self._counts], device=logits.device)
        of_chosen = own.gather(-1, chosen[:, None])[:, 0].tolist()
        values, ids = own.topk(min(max(self._counts.values()), own.shape[-1]))
        for (row, count), logprob, top_ids, top in zip(
            self._counts.items(), of_chosen, ids.tolist(), values.tolist(), strict=True
        ):
            pairs = tuple(zip(top_ids[:count], top[:count], strict=True))
            tokens[row] = replace(tokens[row], logprob=logprob, top=pairs)
        return tokens


def unpack_masks(masks: Sequence[TokenMask], vocabulary: int, device: torch.device) -> torch.Tensor:
    """Which tokens may come, [rows, vocabulary], bool; ids beyond a mask may not."""
    packed = torch.from_numpy(np.stack(masks)).to(device)
    bits = packed[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1
    known = bits.flatten(1)[:, :vocabulary].bool()
    return torch.nn.functional.pad(known, (0, vocabulary - known.shape[-1]))


def _places(places: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(places, dtype=torch.int64, device=device)


def _penalties(states: Sequence[SamplingState], device: torch.device) -> Penalties:
    seen = [state.seen for state in states if state.seen is not None]
    return Penalties([state.sampling for state in states], seen, device)
