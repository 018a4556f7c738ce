"""Fused attention that lets two layers' queries and keys be seen on the way.

Score rows are taken from them by two small products; attention weights of all queries are never computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# The name to load a model with.
WATCHED_ATTENTION = "vscan_watched"
# Is shown the queries and keys [tiles, heads, rows, head_dim] and the scaling of a layer called with `watch=`.
Watch = Callable[[torch.Tensor, torch.Tensor, float], None]


def _watched(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    watch: Watch | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if watch is not None:
        watch(query, key, scaling)
    output: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)[0]
    return output, None


AttentionInterface.register(WATCHED_ATTENTION, _watched)


def first_row_scores(query: torch.Tensor, key: torch.Tensor, scaling: float) -> torch.Tensor:
    """How much the first row, the [CLS] token, attends to every other: softmax over all rows in float32, mean over heads.

    Args:
        query, key: [tiles, heads, 1 + N, head_dim].

    Returns:
        [tiles, N], float32.
    """
    # A sum of products in the order in which heads lie in memory: a matrix product would first copy all keys into another.
    products = query[:, :, :1].transpose(1, 2).float() * scaling * key.transpose(1, 2)  # [tiles, 1 + N, heads, head_dim]
    return products.sum(dim=-1).float().softmax(dim=1).mean(dim=2)[:, 1:]
