"""Fused attention over packed rows: sequences of any lengths one after the other, no padding.

The queries and keys of a layer can be seen on the way; what each row receives is summed up from blocks of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from encoder_service.vision.attention import Watch
from vscan.transfer import to_device

# The name to load a model with.
PACKED_ATTENTION = "vscan_packed"
# Attention weights held at a time, all heads together: what a CPU's cache holds; elsewhere enough to keep the device busy.
_CPU_BLOCK_WEIGHTS = 2**20
_BLOCK_WEIGHTS = 2**26


class PackedSequences:
    """Where sequences lie among packed rows. Those of one length attend in one call.

    rows        a a a a b b b b c c d d d d        lengths 4 4 2 4
    calls       a b d together, then c
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.bounds = list(pairwise(accumulate(lengths, initial=0)))  # first row and last row plus one of each
        starts: dict[int, list[int]] = defaultdict(list)
        for start, end in self.bounds:
            starts[end - start].append(start)
        rows = [torch.tensor(firsts)[:, None] + torch.arange(length) for length, firsts in starts.items()]
        self._rows = [to_device(group, device) for group in rows]  # of each length [sequences, length]
        self._back = to_device(torch.cat([group.flatten() for group in rows]).argsort(), device)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """Every row attends to all rows of its own sequence: [heads, rows, head_dim] three times → [rows, heads, head_dim]."""
        parts = []
        for rows in self._rows:
            q, k, v = (
                tensor[:, rows].transpose(0, 1) for tensor in (query, key, value)
            )  # [sequences, heads, length, head_dim]
            parts.append(scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
        return torch.cat(parts)[self._back]


def _packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    sequences: PackedSequences,
    watch: Watch | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """[1, heads, rows, head_dim] three times → [1, rows, heads, head_dim]."""
    if watch is not None:
        watch(query[0], key[0], scaling)
    return sequences.attend(query[0], key[0], value[0], scaling)[None], None


AttentionInterface.register(PACKED_ATTENTION, _packed)


def received_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    sequences: PackedSequences,
    *,
    block_weights: int | None = None,
) -> torch.Tensor:
    """How much attention each row receives: softmax in float32, summed over heads, mean over the queries of its sequence.

    Memory grows with the number of rows, never with its square.

    Args:
        query, key: [heads, rows, head_dim].
        block_weights: how many attention weights exist at a time, or those of one query where that is more; None: as suits
            the device.

    Returns:
        [rows], float32.
    """
    if block_weights is None:
        block_weights = _CPU_BLOCK_WEIGHTS if query.device.type == "cpu" else _BLOCK_WEIGHTS
    return torch.cat([_received(query[:, a:b], key[:, a:b], scaling, block_weights) for a, b in sequences.bounds])


def _received(query: torch.Tensor, key: torch.Tensor, scaling: float, block_weights: int) -> torch.Tensor:
    heads, rows, _ = query.shape
    keys = key.float().transpose(1, 2).contiguous()  # once, not again for every block
    received = keys.new_zeros(rows)
    step = max(1, block_weights // (heads * rows))
    for start in range(0, rows, step):
        block = query[:, start : start + step].float() * scaling
        received += (block @ keys).softmax(dim=-1).flatten(0, 1).sum(dim=0)
    return received / rows
