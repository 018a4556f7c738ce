"""Where one sequence's rows of one segment lie. No torch.

blocks of 4 rows        b0 (page 7)   b1 (page 8)   b2 (page 3)
rows                    0 1 2 3       4 5 6 7       8 9
rows of the storage     28 … 31       32 … 35       12 13         runs(0, 10) = [(28, 8), (12, 2)]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from decoder_service.kv_cache.blocks import Block
from decoder_service.kv_cache.prefix import Node

# Rows of the storage that follow each other: the first, and how many.
Run = tuple[int, int]


@dataclass(slots=True, eq=False)
class BlockTable:
    """`rows` rows are held; there is room for as many as the blocks have. Owned by the engine's thread."""

    segment: int
    block_rows: int
    groups: int
    shareable_rows: int | None  # further rows belong to this sequence alone; None for no bound
    node: Node  # the link of the last block that is in the index, or the root
    linked: int = 0  # blocks that are in the index, or equal one that is
    rows: int = 0
    blocks: list[Block] = field(default_factory=list)
    hopes: list[range] = field(default_factory=list)  # pages behind its own, see PageAllocator
    _runs: list[list[Run]] = field(init=False)  # of all blocks, by group

    def __post_init__(self) -> None:
        self._runs = [[] for _ in range(self.groups)]

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return len(self.blocks) * self.block_rows

    def append(self, blocks: Iterable[Block]) -> None:
        """More room."""
        for block in blocks:
            self.blocks.append(block)
            for group, page in enumerate(block.pages):
                _extend(self._runs[group], page * self.block_rows, self.block_rows)

    def replace_next(self, block: Block) -> Block:
        """Another block in the place of the one where the next row goes, which is returned. There must be room for that row.

        blocks of 4 rows, 6 rows held, room for 12      b0  b1  b2       b1 is replaced, whatever lies behind it
        """
        place = self.rows // self.block_rows
        blocks = [*self.blocks[:place], block, *self.blocks[place + 1 :]]
        replaced, self.blocks = self.blocks[place], []
        self.__post_init__()
        self.append(blocks)
        return replaced

    def runs(self, start: int, end: int, group: int = 0) -> list[Run]:
        """Where rows `start` to `end` lie, in as few runs as there are."""
        if end - start == 1:
            return [(self.place(start, group), 1)]
        if len(self._runs[group]) == 1:
            return [(self._runs[group][0][0] + start, end - start)] if end > start else []
        found, row = [], 0
        for first, count in self._runs[group]:
            low, high = max(start, row), min(end, row + count)
            if low < high:
                found.append((first + low - row, high - low))
            row += count
        return found

    def place(self, row: int, group: int = 0) -> int:
        """Where this row lies."""
        size = self.block_rows
        return self.blocks[row // size].pages[group] * size + row % size

    def block_rows_of(self, rows: Iterable[int]) -> list[tuple[Block, int]]:
        """Of each of these rows its block, and which row of that it is."""
        return [(self.blocks[row // self.block_rows], row % self.block_rows) for row in rows]

    def places(self, rows: Iterable[int], group: int = 0) -> list[int]:
        """Where each of these rows lies."""
        size = self.block_rows
        firsts = [block.pages[group] * size for block in self.blocks]
        return [firsts[row // size] + row % size for row in rows]


def _extend(runs: list[Run], first: int, count: int) -> None:
    if runs and sum(runs[-1]) == first:
        runs[-1] = (runs[-1][0], runs[-1][1] + count)
    else:
        runs.append((first, count))
