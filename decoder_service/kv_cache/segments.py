"""Segments: the runs of layers between two pruning layers, and what their rows take. No torch.

    layers    0 1 2 3 4 5        prune before layer 3
    segments  0 0 0 1 1 1        [Segment(0, 0, 3), Segment(1, 3, 6)]

A prompt has its own number of rows, its own positions and its own keys and values in each segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import gcd


@dataclass(frozen=True, slots=True)
class Segment:
    """Layers `first_layer` up to, not including, `end_layer`."""

    index: int
    first_layer: int
    end_layer: int

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return self.end_layer - self.first_layer


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one row takes: its key and value in one layer, and its hidden state at one boundary."""

    kv_heads: int
    head_dim: int
    hidden_size: int
    itemsize_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's key and value in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.itemsize_bytes

    @property
    def boundary_row_bytes(self) -> int:
        """Bytes of one row's hidden state at one boundary."""
        return self.hidden_size * self.itemsize_bytes


@dataclass(frozen=True)
class PageLayout:
    """How segments are cut into equal pages of `block_rows` rows x `group_layers` layers.

        layers 0..5, pruned before 2      segments 0 1, 2 3 4 5      group_layers = gcd(2, 4) = 2
        a block of segment 0 takes one page, a block of segment 1 two

    A block with a boundary behind it has a place for its rows' hidden states as well: a part of a page of the same kind. A
    page is made of strips of `block_rows` x `head_dim` numbers; a place takes as many as a hidden state is wide.

        4 kv heads of 16, hidden 64, group of 2     a page has 2 x 2 x 4 = 16 strips, a place takes 4: 4 places a page
        1 kv head of 16, hidden 64, group of 1      a page has 2 strips: a place takes 2 pages
    """

    segments: tuple[Segment, ...]
    block_rows: int
    shape: KvShape

    @cached_property
    def group_layers(self) -> int:
        """Layers that one page holds."""
        return gcd(*(segment.layers for segment in self.segments))

    @cached_property
    def page_bytes(self) -> int:
        """Memory of one page."""
        return self.block_rows * self.group_layers * self.shape.row_bytes

    @cached_property
    def page_strips(self) -> int:
        """Strips of one page."""
        return 2 * self.group_layers * self.shape.kv_heads

    @cached_property
    def place_strips(self) -> int:
        """Strips that a block's hidden states take."""
        return -(-self.shape.hidden_size // self.shape.head_dim)

    @cached_property
    def places_per_page(self) -> int:
        """Places that share one page; 1 also where a place takes several pages."""
        return max(1, self.page_strips // self.place_strips)

    @cached_property
    def pages_per_place(self) -> int:
        """Pages that a place takes where it does not share one."""
        return -(-self.place_strips // self.page_strips)

    @cached_property
    def _pages_per_block(self) -> tuple[int, ...]:
        return tuple(segment.layers // self.group_layers for segment in self.segments)

    def has_boundary(self, segment: int) -> bool:
        """Whether rows of this segment leave hidden states behind it."""
        return segment < len(self.segments) - 1

    def pages_per_block(self, segment: int) -> int:
        """Pages that the keys and values of a block of this segment take."""
        return self._pages_per_block[segment]

    def place_pages(self, places: int) -> int:
        """Pages that so many places take."""
        return -(-places // self.places_per_page) * self.pages_per_place

    def blocks(self, rows: int) -> int:
        """Blocks that hold so many rows."""
        return -(-rows // self.block_rows)

    def pages(self, rows: Sequence[int]) -> int:
        """Pages of a sequence with `rows[s]` rows in segment s that shares nothing."""
        return self.block_pages([self.blocks(count) for count in rows])

    def block_pages(self, blocks: Sequence[int]) -> int:
        """Pages of `blocks[s]` blocks of segment s, their places included."""
        places = sum(count for segment, count in enumerate(blocks) if self.has_boundary(segment))
        return sum(count * self.pages_per_block(segment) for segment, count in enumerate(blocks)) + self.place_pages(places)

    def block_bytes(self, segment: int) -> int:
        """Bytes that a block of this segment uses, its rows at the boundary behind it included."""
        kv_bytes = self.segments[segment].layers * self.shape.row_bytes
        return self.block_rows * (kv_bytes + self.shape.boundary_row_bytes * self.has_boundary(segment))


@dataclass(frozen=True, slots=True)
class SegmentUsage:
    """The cache in one segment: what running requests hold, and what is kept for requests to come."""

    segment: Segment
    rows: int  # over all running requests; a shared row counts for each
    blocks: int  # a shared block counts once
    used_bytes: int  # of those blocks
    idle_bytes: int  # of blocks that nobody holds and a prompt may find again


@dataclass(frozen=True, slots=True)
class PageUsage:
    """The cache's pages: all, those that running requests hold, and those that are kept for requests to come."""

    total: int
    held: int
    idle: int
    page_bytes: int


def split_layers(layers: int, prune_layers: Sequence[int]) -> tuple[Segment, ...]:
    """The segments of a model with `layers` layers, pruned before each of `prune_layers`.

    Raises:
        ValueError: the pruning layers do not ascend, or one is outside 1 to layers - 1.
    """
    bounds = (0, *prune_layers, layers)
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"pruning layers {list(prune_layers)} do not ascend within 1 to {layers - 1}")
    return tuple(Segment(index, low, high) for index, (low, high) in enumerate(pairwise(bounds)))
