"""Decode steps as CUDA graphs: launched as one, instead of kernel by kernel from Python.

A step in which every sequence runs one row does the same work on the same tensors each time, if what differs is copied into
tensors that stay where they are:

    numbers [k, n], int64        the ids; of each segment: rows after the step, place, and of a boundary where the rows go
    tables of pages, int32       see `PageTables`; all steps share them

A step of n sequences is a graph of its own. All are recorded before anything is served. Decode rows pass every boundary
straight on; they are written to the store as well, for later turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.language.base import LanguageModel
from decoder_service.runner import varlen
from decoder_service.runner.batch import Part
from decoder_service.runner.page_tables import PageTables
from vscan.cuda_graphs import GraphRecorder
from vscan.transfer import refill

logger = logging.getLogger(__name__)

# Recording takes time and memory for each number of sequences, and the more of them decode, the less launching weighs.
_MOST_RECORDED = 64


class FixedPlan:
    """What `AttentionPlan` is to other steps: n sequences, one row each, in one segment. Made by work on the device alone.

    blocks of 4 rows, of a sequence that will have 10: its last row is row 1 of block 2, in page 9 row 37 of the storage

    Args:
        tables: its `PageTables`, [groups, n, width].
        totals: rows of each sequence, the new one included, [n], int64 on the device.
        most_rows: of any sequence, ever: the kernel is told when it is recorded.
    """

    def __init__(
        self, segment: Segment, storage: KvStorage, tables: torch.Tensor, totals: torch.Tensor, *, most_rows: int
    ) -> None:
        self._storage = storage
        (groups, count, _), size = tables.shape, storage.layout.block_rows
        block, row = (totals - 1) // size, (totals - 1) % size
        pages = tables.gather(2, block.expand(groups, -1)[..., None])[..., 0]
        self._written = pages.to(torch.int64) * size + row
        lengths = totals.to(torch.int32)
        bounds = functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        own = torch.arange(count + 1, dtype=torch.int32, device=totals.device)
        self._contexts = [varlen.PagedContext(own, bounds, 1, most_rows, size, table, lengths) for table in tables]

    def last_rows(self) -> slice:
        """All of them."""
        return slice(None)

    def attend(
        self,
        layer: int,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        *,
        last_rows_only: bool = False,
    ) -> torch.Tensor:
        """As `AttentionPlan.attend`."""
        group = self._storage.group_of(layer)
        self._storage.write(layer, self._written[group], keys, values)
        return self._contexts[group].attend(queries.transpose(0, 1), *self._storage.planes(layer), scaling)


class DecodeStep:
    """A decode step of `count` sequences on fixed tensors."""

    def __init__(self, count: int, model: LanguageModel, storage: KvStorage, tables: PageTables, *, most_rows: int) -> None:
        self._model = model
        self._storage = storage
        self._tables = tables
        self._most_rows = most_rows
        self._count = count
        layout = storage.layout
        self._sizes = [2 + (1 + layout.pages_per_place) * layout.has_boundary(segment.index) for segment in layout.segments]
        # Until it is filled: sequences of one row, all in the first page.
        self._numbers = torch.zeros((1 + sum(self._sizes), count), dtype=torch.int64, device=model.device)
        for numbers in self._of_segments():
            numbers[0].fill_(1)

    def fill(self, parts: Sequence[Part]) -> None:
        """For the step to come: one copy, and another where tables have changed."""
        self._tables.fill([part.piece.sequence.tables for part in parts])
        numbers = [[part.piece.sequence.rows.ids[part.piece.ranges[0][0]] for part in parts]]
        for segment in self._storage.layout.segments:
            numbers += self._numbers_of(segment.index, parts)
        refill(self._numbers, torch.tensor(numbers, dtype=torch.int64))

    def logits(self) -> torch.Tensor:
        """[sequences, vocabulary]. Nothing but work on the device: a copy from the host would be recorded with what the host's
        memory held at the time.
        """
        hidden = self._model.embed_ids(self._numbers[0])
        for segment, (totals, places, *left) in zip(self._storage.layout.segments, self._of_segments(), strict=True):
            tables = self._tables.of(segment.index, self._count)
            plan = FixedPlan(segment, self._storage, tables, totals, most_rows=self._most_rows)
            hidden = self._model.walk(segment, hidden, self._model.on_all_axes(places), plan, last=not left)
            if left:
                self._storage.write_boundary(self._storage.pieces(torch.stack(left, dim=1)), hidden)
        return self._model.logits(hidden)

    def _of_segments(self) -> tuple[torch.Tensor, ...]:
        """Of each segment its part of the numbers."""
        return torch.split(self._numbers[1:], self._sizes)

    def _numbers_of(self, index: int, parts: Sequence[Part]) -> list[list[int]]:
        ranges = [part.piece.ranges[index] for part in parts]
        places = [part.device.generated_place(index, start) for part, (start, _) in zip(parts, ranges, strict=True)]
        numbers = [[total for _, total in ranges], places]
        if self._storage.layout.has_boundary(index):
            tables = (part.piece.sequence.tables[index] for part in parts)
            left = [table.block_rows_of((start,))[0] for table, (start, _) in zip(tables, ranges, strict=True)]
            numbers += map(list, zip(*self._storage.places(left), strict=True))
        return numbers


class DecodeGraphs:
    """Recorded steps, by number of sequences. Owned by the engine's thread."""

    def __init__(self, model: LanguageModel, storage: KvStorage) -> None:
        self._model = model
        self._storage = storage
        self._steps: dict[int, tuple[DecodeStep, Callable[[], torch.Tensor]]] = {}

    def prepare(self, *, most_sequences: int, most_rows: int) -> None:
        """Records steps of 1 to `most_sequences` sequences, where the kernel reads pages. Before anything is served: it
        writes into the first row of the first page.

        What cannot be recorded is run as other steps are. Raises only if the device is gone.
        """
        if self._steps or not varlen.pages_serve(self._storage, self._model.dtype):
            return
        try:
            self._record(min(most_sequences, _MOST_RECORDED), most_rows)
        except Exception:
            logger.warning("decode steps cannot be recorded: they are launched kernel by kernel", exc_info=True)
            self._steps.clear()
            if self._model.device.type == "cuda":
                torch.cuda.synchronize(self._model.device)  # raises if it is gone

    def serve(self, parts: Sequence[Part]) -> bool:
        """Whether a step of these was recorded: of so many, all of them sampled decode rows."""
        return len(parts) in self._steps and all(part.piece.decodes for part in parts)

    def logits(self, parts: Sequence[Part]) -> torch.Tensor:
        """Runs the step: [sequences, vocabulary], valid until the next one."""
        step, run = self._steps[len(parts)]
        step.fill(parts)
        return run()

    def _record(self, most: int, most_rows: int) -> None:
        tables = PageTables(self._storage.layout, self._model.device, places=most, most_rows=most_rows)
        record = GraphRecorder(self._model.device).record if self._model.device.type == "cuda" else _as_it_is
        for count in range(most, 0, -1):  # the largest first: the others find room in its memory
            step = DecodeStep(count, self._model, self._storage, tables, most_rows=most_rows)
            self._steps[count] = step, record(step.logits)


def _as_it_is(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """On a CPU nothing is recorded."""
    return work
