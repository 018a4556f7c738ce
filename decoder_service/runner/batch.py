"""The rows of one step, packed: every row of the prompts that begin, one row of every sequence that goes on. No padding.

sequences   a (prompt of 5)   b (goes on)   c (prompt of 3)
rows        a a a a a         b             c c c              [1, 9, hidden]
slots       0..5              5..6          6..9
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.language.base import LanguageModel, Positions, Rope
from decoder_service.runner.attention import AttentionPlan, Span
from decoder_service.runner.sequence import DeviceSequence, PromptRows


@dataclass(slots=True)
class Slot:
    """One sequence's part of a step, in the segment that is being walked."""

    sequence: DeviceSequence
    start: int
    end: int
    positions: Positions  # in the segment that is being walked
    prompt: PromptRows | None  # in the step that runs the prompt

    @property
    def rows(self) -> int:
        """Rows of the step that are its own."""
        return self.end - self.start


class Batch:
    """A step under way: its hidden states, and where each sequence's rows are."""

    def __init__(self, sequences: Sequence[DeviceSequence], model: LanguageModel) -> None:
        self._model = model
        parts = [_first_rows(sequence, model) for sequence in sequences]
        self.slots = []
        start = 0
        for sequence, rows in zip(sequences, parts, strict=True):
            self.slots.append(_slot(sequence, start, rows.shape[0], model))
            start += rows.shape[0]
        self.hidden = (torch.cat(parts) if len(parts) > 1 else parts[0])[None]  # [1, rows, hidden]
        self.rope: Rope = self._rope()

    def walk(self, segment: Segment) -> None:
        """Runs every row through the segment's layers."""
        for slot in self.slots:
            slot.sequence.kv[segment.index].reserve(slot.rows)
        plan = AttentionPlan([Span(slot.start, slot.end, slot.sequence.kv[segment.index]) for slot in self.slots])
        hidden = self.hidden
        for layer in self._model.layers[segment.first_layer : segment.end_layer]:
            hidden = layer(hidden, attention_mask=None, position_embeddings=self.rope, plan=plan)
        self.hidden = hidden
        for slot in self.slots:
            slot.sequence.kv[segment.index].commit(slot.rows)
            slot.sequence.next_positions[segment.index] = slot.positions.next

    def keep(self, kept: Sequence[torch.Tensor | None], segment: Segment) -> None:
        """Goes over to `segment`: of slot i only the rows `kept[i]` stay (all where None), at that segment's positions."""
        if any(rows is not None for rows in kept):
            self._gather(kept)
        for slot in self.slots:
            if slot.prompt is None:
                slot.positions = self._model.text_positions(slot.sequence.next_positions[segment.index], 1)
        self.rope = self._rope()

    def last_rows(self) -> torch.Tensor:
        """The last row of each sequence, [sequences, hidden]."""
        return self.hidden[0, [slot.end - 1 for slot in self.slots]]

    def slot_rope(self, slot: Slot) -> Rope:
        """The rotary embeddings of one slot's rows."""
        cos, sin = self.rope
        return cos[..., slot.start : slot.end, :], sin[..., slot.start : slot.end, :]

    def _gather(self, kept: Sequence[torch.Tensor | None]) -> None:
        index, start = [], 0
        for slot, rows in zip(self.slots, kept, strict=True):
            own = torch.arange(slot.rows) if rows is None else rows
            index.append(own + slot.start)
            slot.start, slot.end = start, start + own.shape[0]
            start = slot.end
        self.hidden = self.hidden[:, torch.cat(index).to(self.hidden.device)]

    def _rope(self) -> Rope:
        places = torch.cat([slot.positions.places for slot in self.slots], dim=-1)
        return self._model.rope(self.hidden, places.to(self.hidden.device))


def _first_rows(sequence: DeviceSequence, model: LanguageModel) -> torch.Tensor:
    if sequence.last_token is None:
        return model.prompt_rows(sequence.request.prompt)
    return model.embed([sequence.last_token])


def _slot(sequence: DeviceSequence, start: int, rows: int, model: LanguageModel) -> Slot:
    if sequence.prefilled:
        return Slot(sequence, start, start + rows, model.text_positions(sequence.next_positions[0], 1), None)
    positions = model.prompt_positions(sequence.request.prompt)
    return Slot(sequence, start, start + rows, positions, PromptRows(sequence.request))
