"""Attention of one sequence with torch's scaled_dot_product_attention: on a CPU, and for dtypes that no other kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from decoder_service.kv_cache.table import Run

# One row reads so many runs where they lie; of more, gathering them first is faster.
_MOST_RUNS = 4


def attend(
    queries: torch.Tensor,
    all_keys: torch.Tensor,
    all_values: torch.Tensor,
    runs: Sequence[Run],
    scaling: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """n queries over a context whose last n rows are their own: [heads, n, head_dim] → the same.

    Args:
        all_keys: of all sequences, [kv heads, all rows, head_dim].
        all_values: as `all_keys`.
        runs: where the context lies in them; one run is read there, of several rows are gathered.
        mask: [n, context], True where a query may look; None for causal, aligned to the bottom right.
    """
    if len(runs) == 1:
        first, count = runs[0]
        return _attend(queries, all_keys[:, first : first + count], all_values[:, first : first + count], scaling, mask)
    keys, values = ([rows[:, first : first + count] for first, count in runs] for rows in (all_keys, all_values))
    # Half precision is gathered always, so that where rows lie changes no bit of the result.
    if queries.shape[1] == 1 and len(runs) <= _MOST_RUNS and queries.dtype in (torch.float32, torch.float64):
        return _attend_scattered(queries, keys, values, scaling)
    return _attend(queries, torch.cat(keys, dim=1), torch.cat(values, dim=1), scaling, mask)


def bottom_right_causal(new: int, total: int, device: torch.device) -> torch.Tensor:
    """True where a query may look; new = 2, total = 4:

    1 1 1 0
    1 1 1 1
    """
    return torch.ones((new, total), dtype=torch.bool, device=device).tril(total - new)


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, mask: torch.Tensor | None
) -> torch.Tensor:
    rows = queries.shape[1]
    before = 0 if mask is not None or rows == 1 else keys.shape[1] - rows
    if before:  # rows that nobody reads make the causal kernel's alignment to the top left right
        queries = functional.pad(queries, (0, 0, before, 0))
    attended = functional.scaled_dot_product_attention(
        queries[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None and rows > 1,
        scale=scaling,
        enable_gqa=queries.shape[0] != keys.shape[0],
    )[0]
    return attended[:, before:] if before else attended


def _attend_scattered(
    query: torch.Tensor, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], scaling: float
) -> torch.Tensor:
    """One query over a context in several runs, without gathering it: [heads, 1, head_dim] → the same."""
    heads, kv_heads = query.shape[0], keys[0].shape[0]
    asked = query.reshape(kv_heads, heads // kv_heads, -1) * scaling
    scores = torch.cat([torch.bmm(asked, run.transpose(1, 2)) for run in keys], dim=-1)  # [kv heads, heads of each, rows]
    weights = torch.split(scores.softmax(dim=-1), [run.shape[1] for run in keys], dim=-1)
    attended = torch.bmm(weights[0], values[0])
    for weight, run in zip(weights[1:], values[1:], strict=True):
        attended = torch.baddbmm(attended, weight, run)
    return attended.reshape(heads, 1, -1)
