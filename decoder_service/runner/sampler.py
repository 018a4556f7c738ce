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
from decoder_service.runner.faults import not_finite
from decoder_service.runner.penalties import Penalties
from decoder_service.runner.sampling_state import SamplingState
from vscan.errors import InternalError
from vscan.transfer import to_device

# What a row has instead of a token; read back with the tokens, so that looking costs no wait of its own.
_NO_NUMBERS = -1  # the model's logits are not finite
_NONE_LEFT = -2  # all tokens are ruled out


class Sampler:
    """Owned by the engine's thread. What a row gets depends on that row and its state alone, whatever else is in the step."""

    def __init__(self) -> None:
        self._states: list[SamplingState] = []
        self._plan: _Plan | None = None  # of `_states`: made anew only when other sequences are in the step

    def sample(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> list[SampledToken | Exception]:
        """One token for each row of `logits` [rows, vocabulary], and on with each row's state; or what failed for a row.

        Log-probabilities are of the model's own distribution: of `logits` as they are. No state goes on before all of that is
        read, so that after an exception the same can be done again.
        """
        plan = self._plan_for(list(states), logits)
        chosen = largest(logits, otherwise=_NO_NUMBERS)
        if plan.special:
            chosen[plan.rows] = torch.where(chosen[plan.rows] < 0, _NO_NUMBERS, plan.choose(logits[plan.rows].double()))
        tokens = plan.logprobs.read(logits, chosen) if plan.logprobs else [SampledToken(token) for token in chosen.tolist()]
        return [_taken(token, state) for token, state in zip(tokens, states, strict=True)]

    def _plan_for(self, states: list[SamplingState], logits: torch.Tensor) -> _Plan:
        if self._plan is None or states != self._states:
            self._states, self._plan = states, _Plan(states, logits)
        return self._plan


class _Plan:
    """What is to be done for the rows of a step, its numbers on the device."""

    def __init__(self, states: Sequence[SamplingState], logits: torch.Tensor) -> None:
        device, vocabulary = logits.device, logits.shape[-1]
        self.special = [row for row, state in enumerate(states) if not state.plain]
        special = [states[row] for row in self.special]
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
        """The tokens of the special rows, negative where there is none; `logits` are theirs, and are overwritten."""
        if self._walks:
            allowed = unpack_masks([walk.mask for walk in self._walks], logits.shape[-1], logits.device)
            logits[self._constrained] = logits[self._constrained].masked_fill(~allowed, -torch.inf)
        if self._penalties:
            self._penalties.apply(logits, self._penalised)
        chosen = largest(logits, otherwise=_NONE_LEFT)
        if self._drawing:
            numbers = [state.next_number() for state in self._drawing_states]
            drawn = self._drawing.draw(logits[self._drawn], numbers)
            chosen[self._drawn] = torch.where(chosen[self._drawn] < 0, _NONE_LEFT, drawn)
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

    def read(self, logits: torch.Tensor, chosen: torch.Tensor) -> list[SampledToken]:
        """The tokens `chosen` [rows], and these with them: all in one copy, as numbers of float64, which holds every id.

        chosen 0 1 2 | of row 0: logprob, 2 ids, 2 logprobs | of row 2: logprob, 2 ids, 2 logprobs
        """
        own = logits[self._rows].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        of_chosen = own.gather(-1, chosen[self._rows, None].clamp(min=0))
        values, ids = own.topk(min(max(self._counts.values()), own.shape[-1]))
        told = torch.cat([part.to(torch.float64) for part in (of_chosen, ids, values)], dim=-1)
        numbers = torch.cat((chosen.to(torch.float64), told.flatten())).tolist()
        tokens = [SampledToken(int(token)) for token in numbers[: chosen.shape[0]]]
        size = told.shape[1]
        for number, (row, count) in enumerate(self._counts.items()):
            logprob, *tops = numbers[len(tokens) + number * size :][:size]
            top_ids, top = tops[: size // 2], tops[size // 2 :]
            pairs = tuple(zip(map(int, top_ids[:count]), top[:count], strict=True))
            tokens[row] = replace(tokens[row], logprob=logprob, top=pairs)
        return tokens


def largest(logits: torch.Tensor, *, otherwise: int) -> torch.Tensor:
    """The largest of each row of `logits` [rows, vocabulary]: [rows], int64; `otherwise` where that is no finite number.

    1 3 2        1          of several NaN, or without one of several infinities, the first is the largest:
    1 NaN inf    otherwise  so one look at the largest tells of all
    -inf 2 -1    1          what is ruled out is no fault
    """
    chosen = logits.argmax(dim=-1, keepdim=True)
    return torch.where(logits.gather(-1, chosen).isfinite(), chosen, otherwise)[:, 0]


def _taken(token: SampledToken, state: SamplingState) -> SampledToken | Exception:
    """The state goes on by its token, if it has one."""
    if token.token_id == _NO_NUMBERS:
        return not_finite("logits")
    if token.token_id == _NONE_LEFT:
        return InternalError("no token can follow: the model rules out all that this request allows")
    if state.plain:
        return token
    try:
        state.take(token.token_id)
    except Exception as error:  # this row's own
        return error
    if state.walk is None:
        return token
    return replace(token, complete=state.walk.complete, problem=state.walk.problem)


def unpack_masks(masks: Sequence[TokenMask], vocabulary: int, device: torch.device) -> torch.Tensor:
    """Which tokens may come, [rows, vocabulary], bool; ids beyond a mask may not."""
    packed = to_device(torch.from_numpy(np.stack(masks)), device)
    bits = packed[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1
    known = bits.flatten(1)[:, :vocabulary].bool()
    return torch.nn.functional.pad(known, (0, vocabulary - known.shape[-1]))


def _places(places: Sequence[int], device: torch.device) -> torch.Tensor:
    return to_device(torch.tensor(places, dtype=torch.int64), device)


def _penalties(states: Sequence[SamplingState], device: torch.device) -> Penalties:
    seen = [state.seen for state in states if state.seen is not None]
    return Penalties([state.sampling for state in states], seen, device)
