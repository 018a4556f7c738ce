"""The pages of a decode step's sequences, in one tensor that stays where it is.

    of a segment    [groups, places, width], int32      sequence p of the step is in place p; width: blocks of the longest

A table changes when a block is added or copied, and when another sequence comes to its place: what changed is written,
and nothing else. Where a longer one was before, its pages stay behind those of the new one: nobody reads so far.

    place 0    a: 7 8 9      a goes on into page 4: one number for each group    7 8 9 4
    place 1    b: 1 2 3      b ends, c comes: all of c's                         5 6 3
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from decoder_service.kv_cache.blocks import Block
from decoder_service.kv_cache.segments import PageLayout
from decoder_service.kv_cache.table import BlockTable
from vscan.transfer import to_device

# What is written: where in the tensor, and the page there.
_Change = tuple[NDArray[np.int64], NDArray[np.int64]]


class PageTables:
    """Owned by the engine's thread.

    Args:
        layout: of the cache.
        device: where it lies.
        places: sequences of the largest step.
        most_rows: of a sequence.
    """

    def __init__(self, layout: PageLayout, device: torch.device, *, places: int, most_rows: int) -> None:
        self._width = layout.blocks(most_rows)
        self._group_stride = places * self._width
        groups = [layout.pages_per_block(segment.index) for segment in layout.segments]
        sizes = [count * self._group_stride for count in groups]
        self._pages = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        self._starts = [0, *accumulate(sizes)]
        self._tables = [part.view(-1, places, self._width) for part in torch.split(self._pages, sizes)]
        # Of each segment and place: whose blocks are there, and how many of them.
        self._known: dict[tuple[int, int], tuple[list[Block], int]] = {}

    def of(self, segment: int, count: int) -> torch.Tensor:
        """Those of the first `count` places, [groups, count, width]: for each group they follow each other."""
        return self._tables[segment][:, :count]

    def fill(self, sequences: Sequence[Sequence[BlockTable]]) -> int:
        """For a step of these, each with its tables of all segments. Returns how many numbers changed."""
        changes: list[_Change] = []
        filled: dict[tuple[int, int], tuple[list[Block], int]] = {}
        for place, tables in enumerate(sequences):
            for table in tables:
                key, blocks = (table.segment, place), table.blocks
                known, count = self._known.get(key, (None, 0))
                # A list of blocks only grows; a block that is copied makes another list.
                first = count if known is blocks else 0
                if first < len(blocks):
                    changes.append(self._change(*key, first, blocks))
                    filled[key] = blocks, len(blocks)
        return self._write(changes, filled) if changes else 0

    def _write(self, changes: Sequence[_Change], filled: dict[tuple[int, int], tuple[list[Block], int]]) -> int:
        for key in filled:  # should the copy fail, nobody knows what is there
            self._known.pop(key, None)
        written = torch.from_numpy(np.stack([np.concatenate(part) for part in zip(*changes, strict=True)]))
        where, pages = to_device(written, self._pages.device)
        self._pages.index_copy_(0, where, pages.to(torch.int32))
        self._known |= filled
        return written.shape[1]

    def _change(self, segment: int, place: int, first: int, blocks: Sequence[Block]) -> _Change:
        """From block `first` on."""
        pages = np.array([block.pages for block in blocks[first : self._width]], dtype=np.int64)  # [blocks, groups]
        start = self._starts[segment] + place * self._width + first
        where = start + np.arange(pages.shape[0])[:, None] + self._group_stride * np.arange(pages.shape[1])
        return where.ravel(), pages.ravel()
