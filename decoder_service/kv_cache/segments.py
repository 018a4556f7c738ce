"""Segments: the runs of layers between two pruning layers. No torch.

    layers    0 1 2 3 4 5        prune before layer 3
    segments  0 0 0 1 1 1        [Segment(0, 0, 3), Segment(1, 3, 6)]

A prompt has its own number of rows, its own positions and its own keys and values in each segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


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
    """What one row of one layer takes."""

    kv_heads: int
    head_dim: int
    itemsize_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's key and value in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.itemsize_bytes


@dataclass(frozen=True, slots=True)
class SegmentUsage:
    """What the running requests hold in one segment."""

    segment: Segment
    rows: int
    reserved_bytes: int


def split_layers(layers: int, prune_layers: Sequence[int]) -> tuple[Segment, ...]:
    """The segments of a model with `layers` layers, pruned before each of `prune_layers`.

    Raises:
        ValueError: the pruning layers do not ascend, or one is outside 1 to layers - 1.
    """
    bounds = (0, *prune_layers, layers)
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"pruning layers {list(prune_layers)} do not ascend within 1 to {layers - 1}")
    return tuple(Segment(index, low, high) for index, (low, high) in enumerate(pairwise(bounds)))


def kv_bytes(segments: Sequence[Segment], rows: Sequence[int], shape: KvShape) -> int:
    """Bytes of the keys and values of a sequence with `rows[s]` rows in segment s."""
    return sum(segment.layers * count * shape.row_bytes for segment, count in zip(segments, rows, strict=True))
