"""Decode steps as CUDA graphs: launched as one, instead of kernel by kernel from Python.

A step in which every sequence runs one row does the same work on the same tensors each time, if what differs is copied into
tensors that stay where they are:

    ids [n]    of each segment: places [(axes,) n]    of each group: rows to write [n], pages [n, blocks], lengths [n]

One graph is recorded for each number of sequences, when it comes up first. Decode rows pass every boundary straight on; they
are written to the store as well, for later turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.language.base import LanguageModel
from decoder_service.runner import varlen
from decoder_service.runner.batch import Part
from decoder_service.transfer import to_device


class FixedPlan:
    """What `AttentionPlan` is to other steps: n sequences, one row each, read from tensors that are filled before a step."""

    def __init__(self, count: int, segment: Segment, storage: KvStorage, *, most_rows: int) -> None:
        device, layout = storage.device, storage.layout
        self._segment = segment
        self._storage = storage
        groups = range(layout.pages_per_block(segment.index))
        self.written = [torch.zeros(count, dtype=torch.int64, device=device) for _ in groups]
        bounds = torch.arange(count + 1, dtype=torch.int32, device=device)
        self._contexts = [
            varlen.PagedContext(
                new_bounds=bounds,
                all_bounds=torch.zeros(count + 1, dtype=torch.int32, device=device),
                most_new=1,
                most_all=most_rows,
                block_rows=layout.block_rows,
                table=torch.zeros((count, layout.blocks(most_rows)), dtype=torch.int32, device=device),
                totals=torch.zeros(count, dtype=torch.int32, device=device),
            )
            for _ in groups
        ]
        has_boundary = layout.has_boundary(segment.index)
        self.left = torch.zeros((count, layout.place_strips), dtype=torch.int64, device=device) if has_boundary else None

    def fill(self, parts: Sequence[Part]) -> None:
        """For the step to come."""
        index = self._segment.index
        tables = [part.piece.sequence.tables[index] for part in parts]
        if self.left is not None:
            rows_left = [
                table.block_rows_of([part.piece.ranges[index][0]])[0] for table, part in zip(tables, parts, strict=True)
            ]
            self.left.copy_(self._storage.boundary(rows_left))
        totals = torch.tensor([part.piece.ranges[index][1] for part in parts], dtype=torch.int32)
        for group, (written, context) in enumerate(zip(self.written, self._contexts, strict=True)):
            rows = [table.places([total - 1], group)[0] for table, total in zip(tables, totals.tolist(), strict=True)]
            _refill(written, torch.tensor(rows))
            width = context.table.shape[1]
            pages = [[block.pages[group] for block in table.blocks[:width]] for table in tables]
            _refill(context.table, torch.tensor([[*row, *[0] * (width - len(row))] for row in pages], dtype=torch.int32))
            _refill(context.totals, totals)
            _refill(context.all_bounds[1:], totals.cumsum(0, dtype=torch.int32))

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
        self._storage.write(layer, self.written[group], keys, values)
        return self._contexts[group].attend(queries.transpose(0, 1), *self._storage.planes(layer), scaling)


class DecodeStep:
    """A decode step of `count` sequences on fixed tensors."""

    def __init__(self, count: int, model: LanguageModel, storage: KvStorage, *, most_rows: int) -> None:
        self._model = model
        self._storage = storage
        self._ids = torch.zeros(count, dtype=torch.int64, device=model.device)
        places = model.text_positions(0, count).places
        self._places = [places.clone().to(model.device) for _ in storage.layout.segments]
        self._plans = [FixedPlan(count, segment, storage, most_rows=most_rows) for segment in storage.layout.segments]

    def fill(self, parts: Sequence[Part]) -> None:
        """For the step to come."""
        _refill(self._ids, torch.tensor([part.piece.sequence.rows.ids[-1] for part in parts]))
        for index, (places, plan) in enumerate(zip(self._places, self._plans, strict=True)):
            own = [part.device.places(index, *part.piece.ranges[index], self._model) for part in parts]
            _refill(places, torch.cat(own, dim=-1))
            plan.fill(parts)

    def logits(self) -> torch.Tensor:
        """[sequences, vocabulary]. Nothing but work on the device."""
        hidden = self._model.embed_ids(self._ids)
        for segment, places, plan in zip(self._storage.layout.segments, self._places, self._plans, strict=True):
            hidden = self._model.walk(segment, hidden, places, plan, last=plan.left is None)
            if plan.left is not None:
                self._storage.write_boundary(plan.left, hidden)
        return self._model.logits(hidden)


class DecodeGraphs:
    """Recorded steps, by number of sequences. Owned by the engine's thread."""

    def __init__(self, model: LanguageModel, storage: KvStorage) -> None:
        self._model = model
        self._storage = storage
        self._steps: dict[int, tuple[DecodeStep, Callable[[], torch.Tensor]]] = {}

    def serve(self, parts: Sequence[Part]) -> bool:
        """Whether a step of these is one that can be recorded: on this device, and only decode rows."""
        if not varlen.pages_serve(self._storage, self._model.dtype):
            return False
        return all(part.piece.decodes for part in parts)

    def logits(self, parts: Sequence[Part]) -> torch.Tensor:
        """Runs the step: [sequences, vocabulary], valid until the next one."""
        if len(parts) not in self._steps:
            step = DecodeStep(len(parts), self._model, self._storage, most_rows=self._model.shape.max_context_tokens)
            step.fill(parts)
            self._steps[len(parts)] = step, _record(step.logits, self._model.device)
        step, replay = self._steps[len(parts)]
        step.fill(parts)
        return replay()


def _record(work: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """What runs `work` as a graph; on a CPU `work` itself.

    It runs first as it is, since libraries set themselves up then; that it writes the same rows twice changes nothing.
    """
    if device.type != "cuda":
        return work
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        work()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def _refill(target: torch.Tensor, values: torch.Tensor) -> None:
    target.copy_(to_device(values, target.device))
