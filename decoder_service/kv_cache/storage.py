"""Keys and values of one sequence in one segment.

    storage [layers of the segment, 2, capacity, kv heads, head dim]
                                    └ rows 0 .. length-1 are written in every layer; a step writes length .. length+n-1,
                                      layer by layer, and commits n when the segment's last layer has run

A segment takes rows in blocks as it needs them, so that rows pruned before it never take any.
"""

from __future__ import annotations

import torch

from decoder_service.kv_cache.segments import Segment

BLOCK_ROWS = 64


class SegmentKv:
    """Owned by the engine's thread."""

    def __init__(self, segment: Segment, *, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.segment = segment
        self.length = 0  # rows that every layer holds
        self._storage = torch.empty((segment.layers, 2, 0, kv_heads, head_dim), dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return self._storage.shape[2]

    @property
    def reserved_bytes(self) -> int:
        """Memory taken, in bytes."""
        return self._storage.numel() * self._storage.element_size()

    def reserve(self, rows: int) -> None:
        """Makes room for `rows` more rows, in whole blocks."""
        needed = self.length + rows
        if needed <= self.capacity:
            return
        layers, pair, _, heads, width = self._storage.shape
        grown = self._storage.new_empty((layers, pair, -(-needed // BLOCK_ROWS) * BLOCK_ROWS, heads, width))
        grown[:, :, : self.length] = self._storage[:, :, : self.length]
        self._storage = grown

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes this step's rows of `layer` and returns all rows of it, as views.

        Args:
            layer: index in the model.
            keys: [n, kv heads, head dim], room for which was reserved.
            values: as keys.

        Returns:
            keys and values, [length + n, kv heads, head dim].
        """
        own = self._storage[layer - self.segment.first_layer]
        end = self.length + keys.shape[0]
        own[0, self.length : end] = keys
        own[1, self.length : end] = values
        return own[0, :end], own[1, :end]

    def commit(self, rows: int) -> None:
        """The segment's last layer has run: `rows` more rows are held."""
        self.length += rows
