"""Blocks: `block_rows` rows of one segment, in one page for each group of its layers; counted by those who hold them. No torch.

taken, refs 1 ──share──▶ refs 2 ──release──▶ refs 1 ──release──▶ not in the index: its pages are free again
                                                         └─────▶ in the index: idle, until a prompt finds it (refs 1)
                                                                 or its pages are needed (least recently used first)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from decoder_service.kv_cache.pages import PageAllocator
from decoder_service.kv_cache.prefix import PrefixIndex
from decoder_service.kv_cache.segments import PageLayout


class OutOfPages(Exception):
    """More pages are needed than are free or idle."""


@dataclass(slots=True, eq=False)
class Block:
    """`pages[i]` holds the i-th group of the segment's layers; the rows at the boundary behind it lie at `pages[0]`."""

    segment: int
    pages: tuple[int, ...]
    refs: int = 1


class BlockPool:
    """Owned by the engine's thread."""

    def __init__(self, layout: PageLayout, *, pages: int, index: PrefixIndex) -> None:
        self.layout = layout
        self.allocator = PageAllocator(pages)
        self._index = index
        self._held: set[Block] = set()
        self._held_blocks = [0] * len(layout.segments)
        self._idle_blocks = [0] * len(layout.segments)

    @property
    def pages(self) -> int:
        """All of them."""
        return self.allocator.pages

    @property
    def available(self) -> int:
        """Pages that are free, or idle and can be."""
        return self.allocator.free + sum(
            count * self.layout.pages_per_block(segment) for segment, count in enumerate(self._idle_blocks)
        )

    def counts(self) -> list[tuple[int, int]]:
        """Of each segment: blocks that somebody holds, and idle ones."""
        return list(zip(self._held_blocks, self._idle_blocks, strict=True))

    def take(self, segment: int, count: int, *, after: Block | None = None, room: int = 0) -> list[Block]:
        """Takes `count` new blocks of a segment, as far as possible one after the other and behind `after`.

        Args:
            room: blocks that may be asked for later; see `PageAllocator`.

        Raises:
            OutOfPages: nothing was taken.
        """
        groups = self.layout.pages_per_block(segment)
        self._make_free(count * groups)
        runs = [
            self.allocator.take(count, after=None if after is None else after.pages[group], room=room)
            for group in range(groups)
        ]
        blocks = [Block(segment, pages) for pages in zip(*runs, strict=True)]
        self._held.update(blocks)
        self._held_blocks[segment] += count
        return blocks

    def share(self, block: Block) -> None:
        """One more holds it; an idle block comes back to life."""
        if block.refs == 0:
            self._index.revive(block)
            self._idle_blocks[block.segment] -= 1
            self._held.add(block)
            self._held_blocks[block.segment] += 1
        block.refs += 1

    def release(self, blocks: Sequence[Block]) -> None:
        """One fewer holds each of them, the last of a sequence first, so that the ends of prefixes are the first to go."""
        for block in reversed(blocks):
            block.refs -= 1
            if block.refs:
                continue
            self._held.remove(block)
            self._held_blocks[block.segment] -= 1
            if self._index.rest(block):
                self._idle_blocks[block.segment] += 1
            else:
                self.allocator.release(block.pages)

    def drop_idle(self) -> None:
        """Frees all that nobody holds."""
        for block in list(self._index.idle):
            self._evict(block)

    def check_integrity(self, holders: Iterable[Sequence[Block]]) -> None:
        """Raises AssertionError unless `holders` are those that the counts and the pages speak of."""
        holding = Counter(block for blocks in holders for block in blocks)
        assert holding == {block: block.refs for block in self._held}, "blocks and their holders differ"
        assert all(block.refs == 0 for block in self._index.idle), "an idle block is held"
        for kept, counted in ((self._held, self._held_blocks), (self._index.idle, self._idle_blocks)):
            counts = Counter(block.segment for block in kept)
            assert [counts[segment.index] for segment in self.layout.segments] == counted
        self._index.check_integrity()
        self.allocator.check_integrity(page for block in self._all() for page in block.pages)

    def _all(self) -> Iterator[Block]:
        yield from self._held
        yield from self._index.idle

    def _make_free(self, pages: int) -> None:
        if pages > self.available:
            raise OutOfPages(f"{pages} pages of {self.available} available ones")
        while self.allocator.free < pages:
            self._evict(next(iter(self._index.idle)))

    def _evict(self, block: Block) -> None:
        self._index.forget(block)
        self._idle_blocks[block.segment] -= 1
        self.allocator.release(block.pages)
