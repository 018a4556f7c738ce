"""Blocks: `block_rows` rows of one segment, in one page for each group of its layers, and a place for their hidden states
where a boundary follows; counted by those who hold them. No torch.

taken, refs 1 ──share──▶ refs 2 ──release──▶ refs 1 ──release──▶ not in the index: its pages are free again
                                                         └─────▶ in the index: idle, until a prompt finds it (refs 1)
                                                                 or its pages are needed (least recently used first)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from decoder_service.kv_cache.pages import PageAllocator
from decoder_service.kv_cache.places import Place, PlacePool
from decoder_service.kv_cache.prefix import PrefixIndex
from decoder_service.kv_cache.segments import PageLayout, PageUsage


class OutOfPages(Exception):
    """More pages are needed than are free or idle."""


@dataclass(slots=True, eq=False)
class Block:
    """`pages[i]` holds the i-th group of the segment's layers; `place` the rows at the boundary behind it, if there is one."""

    segment: int
    pages: tuple[int, ...]
    place: Place | None = None
    refs: int = 1


class BlockPool:
    """Owned by the engine's thread."""

    def __init__(self, layout: PageLayout, *, pages: int, index: PrefixIndex) -> None:
        self.layout = layout
        self.allocator = PageAllocator(pages)
        self._places = PlacePool(layout, self.allocator)
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
        """Pages that are free, or can be once nothing idle is left."""
        return self.allocator.free + self._idle_kv_pages + self._places.idle_pages

    @property
    def usage(self) -> PageUsage:
        """Who has the pages."""
        idle = self._idle_kv_pages + self._places.idle_pages
        return PageUsage(self.pages, self.pages - self.allocator.free - idle, idle, self.layout.page_bytes)

    def has_room(self, blocks: Sequence[int], *, spare_pages: int = 0) -> bool:
        """Whether `blocks[s]` more blocks of segment s can be taken, `spare_pages` being left to others."""
        kv_pages, places = self._needs(blocks)
        new_places = max(0, places - self._places.could_be_free)
        return kv_pages + self.layout.place_pages(new_places) + spare_pages <= self.available

    def make_room(self, blocks: Sequence[int]) -> None:
        """Lets idle blocks go, least recently used first, until so many can be taken.

        Raises:
            OutOfPages: there is no room for them; nothing was let go.
        """
        if not self.has_room(blocks):
            raise OutOfPages(f"{list(blocks)} blocks by segment, {self.available} pages can be had")
        kv_pages, places = self._needs(blocks)
        while self.allocator.free < kv_pages + self.layout.place_pages(max(0, places - self._places.free)):
            self._evict(next(iter(self._index.idle)))

    def make_stretches(self, segment: int, count: int, after: Block, room: int) -> None:
        """Lets up to `room` idle blocks more go if `count` ones cannot follow `after`, nor begin anew with room behind them.

        What was used together lies together, and goes last things first: so there is a stretch then.
        """
        groups = range(self.layout.pages_per_block(segment))
        if not all(self.allocator.has_stretch(count, after.pages[group], room) for group in groups):
            for block in list(islice(self._index.idle, room)):
                self._evict(block)

    def counts(self) -> list[tuple[int, int]]:
        """Of each segment: blocks that somebody holds, and idle ones."""
        return list(zip(self._held_blocks, self._idle_blocks, strict=True))

    def take(self, segment: int, count: int, *, after: Block | None = None, room: int = 0, far: bool = False) -> list[Block]:
        """Takes `count` new blocks of a segment, for which `make_room` has made room, as far as possible one after the other
        and behind `after`.

        Args:
            room: blocks that may be asked for later.
            far: they are given back soon. Both: see `PageAllocator`.
        """
        # Places first: they should not lie where the run may grow.
        places = [self._places.take() if self.layout.has_boundary(segment) else None for _ in range(count)]
        runs = [
            self.allocator.take(count, after=None if after is None else after.pages[group], room=room, far=far)
            for group in range(self.layout.pages_per_block(segment))
        ]
        blocks = [Block(segment, tuple(pages), place) for *pages, place in zip(*runs, places, strict=True)]
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
            if block.place is not None:
                self._places.hold(block.place)
        block.refs += 1

    def release(self, blocks: Sequence[Block]) -> None:
        """One fewer holds each of them, the last of a sequence first, so that the ends of prefixes are the first to go."""
        for block in reversed(blocks):
            block.refs -= 1
            if block.refs:
                continue
            self._held.remove(block)
            self._held_blocks[block.segment] -= 1
            if block.place is not None:
                self._places.rest(block.place)
            if self._index.rest(block):
                self._idle_blocks[block.segment] += 1
            else:
                self._free(block)

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
        held, idle = ([b.place for b in kept if b.place is not None] for kept in (self._held, self._index.idle))
        self._places.check_integrity(held, idle)
        taken = [page for kept in (self._held, self._index.idle) for block in kept for page in block.pages]
        self.allocator.check_integrity([*taken, *self._places.pages()])

    @property
    def _idle_kv_pages(self) -> int:
        return sum(count * self.layout.pages_per_block(segment) for segment, count in enumerate(self._idle_blocks))

    def _needs(self, blocks: Sequence[int]) -> tuple[int, int]:
        """Pages for keys and values, and places."""
        kv_pages = sum(count * self.layout.pages_per_block(segment) for segment, count in enumerate(blocks))
        return kv_pages, sum(count for segment, count in enumerate(blocks) if self.layout.has_boundary(segment))

    def _evict(self, block: Block) -> None:
        self._index.forget(block)
        self._idle_blocks[block.segment] -= 1
        self._free(block)

    def _free(self, block: Block) -> None:
        self.allocator.release(block.pages)
        if block.place is not None:
            self._places.release(block.place)
