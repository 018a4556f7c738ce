"""The rows of one step in one segment, packed: pieces of prompts and decode rows one after the other. No padding.

    pieces      a (rows 0..5)   b (row 37)   c (rows 20..23)
    rows        a a a a a       b            c c c               [1, 9, hidden]

In each segment a piece has a number of rows of its own; one that has none there is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import BlockRow, KvStorage
from decoder_service.language.base import LanguageModel
from decoder_service.runner.attention import AttentionPlan, Span
from decoder_service.runner.sampling_state import SamplingState
from decoder_service.runner.sequence import DeviceSequence
from decoder_service.sequence import Piece
from vscan.transfer import to_device


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the step, and what the device knows of its sequence."""

    piece: Piece
    device: DeviceSequence

    @property
    def name(self) -> str:
        """Of its sequence."""
        return self.piece.sequence.name

    @property
    def samplings(self) -> list[SamplingState]:
        """Who draws a token from its last row: the sample itself, or all of the request where the prompt ends."""
        sequence = self.piece.sequence
        return self.device.samplings[sequence.sample : sequence.sample + sequence.samples]

    def goes_straight(self, segment: int) -> bool:
        """Whether its rows of this segment are the very rows that it has in the one before."""
        if self.piece.decodes:
            return True
        return self.device.sources[segment] is None and self.piece.ranges[segment] == self.piece.ranges[segment - 1]


class Batch:
    """The parts that have rows in `segment`."""

    def __init__(self, parts: Sequence[Part], segment: Segment, model: LanguageModel, storage: KvStorage) -> None:
        self._segment = segment
        self._model = model
        self._storage = storage
        self._straight = segment.index > 0 and all(part.goes_straight(segment.index) for part in parts)
        self._decodes = all(part.piece.decodes for part in parts)
        self._parts = [part for part in parts if part.piece.rows(segment.index)]
        self.plan = AttentionPlan(list(self._spans()), storage)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self._parts

    def embedded(self) -> torch.Tensor:
        """What enters the first layer, [rows, hidden]."""
        if self._decodes:
            return self._model.embed([part.piece.sequence.rows.ids[part.piece.ranges[0][0]] for part in self._parts])
        rows = []
        for part in self._parts:
            sequence = part.piece.sequence
            rows.append(self._model.rows_of(sequence.request.prompt, sequence.rows.ids, *part.piece.ranges[0]))
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def entering(self, left: torch.Tensor | None) -> torch.Tensor:
        """What enters the segment, [rows, hidden]. `left`: the rows that this step ran in the segment before."""
        if not self._segment.index:
            return self.embedded()
        return left if self._straight and left is not None else self._storage.read_boundary(self._sources())

    def leave(self, hidden: torch.Tensor) -> None:
        """Puts the rows [rows, hidden] at the boundary behind the segment."""
        index = self._segment.index
        own = (
            place
            for part in self._parts
            for place in part.piece.sequence.tables[index].block_rows_of(range(*part.piece.ranges[index]))
        )
        self._storage.write_boundary(self._storage.boundary(own), hidden)

    def walk(self, hidden: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Runs the rows [rows, hidden] through the segment's layers; of the last segment only the sampling rows come back."""
        return self._model.walk(self._segment, hidden, self._places(), self.plan, last=last)

    def _spans(self) -> Iterator[Span]:
        start = 0
        for part in self._parts:
            piece, index = part.piece, self._segment.index
            end = start + piece.rows(index)
            yield Span(start, end, piece.sequence.tables[index], piece.ranges[index][1], piece.samples)
            start = end

    def _places(self) -> torch.Tensor:
        index = self._segment.index
        if self._decodes:
            rows = [(part.device, part.piece.ranges[index][0]) for part in self._parts]
            joined = self._model.on_all_axes(torch.tensor([device.generated_place(index, row) for device, row in rows]))
        else:
            places = [part.device.places(index, *part.piece.ranges[index], self._model) for part in self._parts]
            joined = torch.cat(places, dim=-1) if len(places) > 1 else places[0]
        return to_device(joined, self._model.device)

    def _sources(self) -> torch.Tensor:
        """Where the rows of this segment lie in the store that the segment before filled."""
        index = self._segment.index
        sources: list[BlockRow] = []
        for part in self._parts:
            start, end = part.piece.ranges[index]
            kept = part.device.sources_of(index, start, end)
            sources += part.piece.sequence.tables[index - 1].block_rows_of(range(start, end) if kept is None else kept)
        return self._storage.boundary(sources)
