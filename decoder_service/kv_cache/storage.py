"""The tensors behind the pages.

    keys and values   [group layers, 2, pages x block rows, kv heads, head dim]      one plane for each layer of a group
    boundary store    [pages x block rows, hidden]                                   hidden states before the next segment

A page is the same rows of all planes, so pages that follow each other are rows that follow each other: a view. A page belongs
to one segment at a time and a segment has one boundary behind it, so one store serves all boundaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from decoder_service.kv_cache.cache import Copy
from decoder_service.kv_cache.segments import PageLayout
from decoder_service.kv_cache.table import Run
from decoder_service.transfer import to_device

# Rows of the storage: where they follow each other a slice, else a tensor of them.
Rows = slice | torch.Tensor


class KvStorage:
    """Owned by the engine's thread."""

    def __init__(self, layout: PageLayout, *, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        rows, shape = pages * layout.block_rows, layout.shape
        planes = (layout.group_layers, 2, rows, shape.kv_heads, shape.head_dim)
        self._planes = torch.empty(planes, dtype=dtype, device=device)
        stored = rows if len(layout.segments) > 1 else 0
        self._boundary = torch.empty((stored, shape.hidden_size), dtype=dtype, device=device)
        self._place = {
            layer: divmod(layer - segment.first_layer, layout.group_layers)
            for segment in layout.segments
            for layer in range(segment.first_layer, segment.end_layer)
        }

    def group_of(self, layer: int) -> int:
        """Which of its segment's groups a layer of the model is in."""
        return self._place[layer][0]

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer of the model, [all rows, kv heads, head dim] each."""
        plane = self._planes[self._place[layer][1]]
        return plane[0], plane[1]

    def write_boundary(self, rows: Rows, hidden: torch.Tensor) -> None:
        """Puts hidden states [n, hidden] before the boundary."""
        self._boundary[rows] = hidden

    def read_boundary(self, rows: Rows) -> torch.Tensor:
        """Hidden states before the boundary, [n, hidden]; a view where the rows follow each other."""
        return self._boundary[rows]

    def copy(self, copies: Sequence[Copy]) -> None:
        """All that blocks hold, from one to another."""
        size = self.layout.block_rows
        for source, target in copies:
            for old, new in zip(source.pages, target.pages, strict=True):
                here, there = slice(old * size, (old + 1) * size), slice(new * size, (new + 1) * size)
                self._planes[:, :, there] = self._planes[:, :, here]
                if self._boundary.shape[0]:
                    self._boundary[there] = self._boundary[here]

    def rows(self, runs: Iterable[Run]) -> Rows:
        """Runs one after the other, as an index."""
        joined: list[Run] = []
        for first, count in runs:
            if joined and sum(joined[-1]) == first:
                joined[-1] = (joined[-1][0], joined[-1][1] + count)
            else:
                joined.append((first, count))
        if len(joined) == 1:
            first, count = joined[0]
            return slice(first, first + count)
        return self.index([row for first, count in joined for row in range(first, first + count)])

    def index(self, places: Sequence[int]) -> torch.Tensor:
        """Rows of the storage as an index."""
        return to_device(torch.tensor(places, dtype=torch.int64), self.device)
