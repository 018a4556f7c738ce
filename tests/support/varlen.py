"""Attention written out, and torch's variable-length kernel in terms of it, for checking on a CPU what the kernel is given."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch


def written_out(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The last rows of `keys` are the queries' own; each sees the rows up to its own."""
    new, heads, _ = queries.shape
    total, kv_heads, _ = keys.shape
    result = torch.zeros_like(queries)
    for row in range(new):
        seen = total - new + row + 1
        for head in range(heads):
            own = head * kv_heads // heads
            weights = (keys[:seen, own] @ queries[row, head] / math.sqrt(queries.shape[-1])).softmax(dim=0)
            result[row, head] = weights @ values[:seen, own]
    return result


def plain_varlen(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bounds_new: torch.Tensor,
    bounds_all: torch.Tensor,
    longest_new: int,
    longest_all: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    block_table: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    num_splits: int | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What torch's variable-length kernel computes, for checking on a CPU what it is given."""
    assert scale == pytest.approx(1 / math.sqrt(queries.shape[-1]))
    assert window_size == (-1, 0)
    assert bounds_new.dtype == bounds_all.dtype == torch.int32
    assert longest_new == int(bounds_new.diff().max())
    assert longest_all >= int(bounds_all.diff().max())
    assert enable_gqa or queries.shape[1] == keys.shape[-2]
    new, whole = list(pairwise(bounds_new.tolist())), list(pairwise(bounds_all.tolist()))
    if block_table is None:
        contexts = [(keys[first:last], values[first:last]) for first, last in whole]
    else:
        assert seqused_k is not None
        assert (block_table.dtype, seqused_k.dtype, num_splits) == (torch.int32, torch.int32, 1)
        assert seqused_k.tolist() == bounds_all.diff().tolist()
        contexts = [
            (keys[row.long()].flatten(0, 1)[:count], values[row.long()].flatten(0, 1)[:count])
            for row, count in zip(block_table, seqused_k.tolist(), strict=True)
        ]
    return torch.cat([written_out(queries[low:high], *context) for (low, high), context in zip(new, contexts, strict=True)])
