"""The tensors behind the pages.

    planes    [group layers, 2, pages x block rows, kv heads, head dim]     keys and values; a plane for each layer of a group

A page is the same rows of all planes, so pages that follow each other are rows that follow each other: a view. On a CPU the
rows of a head follow each other in memory, since attention reads a head at a time; on a GPU the heads of a row do, as kernels
that read pages ask.

Where a page holds places instead, the same memory is strips of `block rows` pieces of `head dim` numbers, one strip for each
plane, key or value, and head. The hidden state of a block's row r is the r-th piece of each strip of the block's place:

    2 planes, 1 kv head: strips 0..3      hidden = 2 pieces      place 0: strips 0 1      place 1: strips 2 3
    page 5, blocks of 4 rows, place 1, row 3      pieces (strip 2, row 5 x 4 + 3), (strip 3, row 5 x 4 + 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional

from decoder_service.kv_cache.blocks import Block
from decoder_service.kv_cache.cache import Copy
from decoder_service.kv_cache.segments import PageLayout
from decoder_service.kv_cache.table import Run
from vscan.transfer import to_device

# Indices of so few rows are worked out one by one: a tensor operation costs more.
_FEW_ROWS = 16

# Rows of the storage: where they follow each other a slice, else a tensor of them.
Rows = slice | torch.Tensor
# A block, and which of its rows.
BlockRow = tuple[Block, int]


class KvStorage:
    """Owned by the engine's thread."""

    def __init__(self, layout: PageLayout, *, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        self.dtype = dtype
        rows, shape = pages * layout.block_rows, layout.shape
        by_head = device.type == "cpu"
        inner = (shape.kv_heads, rows) if by_head else (rows, shape.kv_heads)
        memory = torch.empty((layout.group_layers, 2, *inner, shape.head_dim), dtype=dtype, device=device)
        self._planes = memory.transpose(2, 3) if by_head else memory
        self._pieces = memory.view(-1, shape.head_dim)
        self._row_stride = 1 if by_head else shape.kv_heads  # pieces from one row of a strip to the next
        first_pieces = _first_pieces(layout, rows, by_head=by_head)
        self._strips = first_pieces.to(device)
        self._strip_numbers: list[list[int]] = first_pieces.tolist()
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

    def by_head(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as [kv heads, all rows, head dim]."""
        keys, values = self.planes(layer)
        return keys.transpose(0, 1), values.transpose(0, 1)

    def write(self, layer: int, rows: Rows, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts the keys and values [kv heads, n, head dim] of n rows of a layer of the model."""
        for there, new in zip(self.by_head(layer), (keys, values), strict=True):
            if isinstance(rows, slice):
                there[:, rows] = new
            else:
                there.index_copy_(1, rows, new)

    def write_boundary(self, pieces: torch.Tensor, hidden: torch.Tensor) -> None:
        """Puts hidden states [n, hidden] where `boundary` says, before the boundary."""
        lacking = pieces.shape[1] * self._pieces.shape[1] - hidden.shape[1]
        if lacking:
            hidden = functional.pad(hidden, (0, lacking))
        self._pieces.index_copy_(0, pieces.flatten(), hidden.reshape(-1, self._pieces.shape[1]))

    def read_boundary(self, pieces: torch.Tensor) -> torch.Tensor:
        """Hidden states before the boundary, [n, hidden]."""
        found = self._pieces.index_select(0, pieces.flatten())
        return found.view(pieces.shape[0], -1)[:, : self.layout.shape.hidden_size]

    def boundary(self, rows: Iterable[BlockRow]) -> torch.Tensor:
        """Where the hidden states of these rows lie, [n, pieces of each], int64 on the device."""
        places = self.places(rows)
        if len(places) <= _FEW_ROWS and self.layout.pages_per_place == 1:
            return self.index([[strip + start for strip in self._strip_numbers[slot]] for slot, start in places])
        return self.pieces(self.index(places))

    def places(self, rows: Iterable[BlockRow]) -> list[tuple[int, ...]]:
        """The same in few numbers: of each row the slot of its place, and where it begins in each page of that."""
        size, stride = self.layout.block_rows, self._row_stride
        found = []
        for block, row in rows:
            if block.place is None:
                raise ValueError("no boundary follows this block")
            found.append((block.place.slot, *((page * size + row) * stride for page in block.place.pages)))
        return found

    def pieces(self, places: torch.Tensor) -> torch.Tensor:
        """`places` [n, 1 + pages of a place] on the device as `boundary` gives them. Nothing but work on the device."""
        slots, pages = places[:, 0], places[:, 1:]
        if self.layout.pages_per_place == 1:
            return self._strips[slots] + pages
        return (self._strips[0] + pages[:, :, None]).flatten(1)[:, : self.layout.place_strips]

    def copy(self, copies: Sequence[Copy]) -> None:
        """All that blocks hold, from one to another."""
        size = self.layout.block_rows
        for source, target in copies:
            for old, new in zip(source.pages, target.pages, strict=True):
                here, there = slice(old * size, (old + 1) * size), slice(new * size, (new + 1) * size)
                self._planes[:, :, there] = self._planes[:, :, here]
            if source.place is not None:
                rows = range(size)
                hidden = self.read_boundary(self.boundary((source, row) for row in rows))
                self.write_boundary(self.boundary((target, row) for row in rows), hidden)

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

    def index(self, places: Sequence[Any]) -> torch.Tensor:
        """Whole numbers on the device, int64."""
        return to_device(torch.tensor(places, dtype=torch.int64), self.device)


def _first_pieces(layout: PageLayout, rows: int, *, by_head: bool) -> torch.Tensor:
    """The piece of row 0 of each strip: [places of a page, strips of a place]; [1, strips of a page] if a place takes all."""
    heads = layout.shape.kv_heads
    strips = torch.arange(layout.page_strips)
    first = strips * rows if by_head else strips // heads * (rows * heads) + strips % heads
    if layout.pages_per_place > 1:
        return first[None]
    return first[: layout.places_per_page * layout.place_strips].view(layout.places_per_page, -1)
