"""Merging dropped tokens into kept ones (VScan, arXiv 2505.22654, section 3). Runs after the projector."""

from __future__ import annotations

import torch
from torch.nn import functional


def merge_dropped(
    tokens: torch.Tensor, kept: torch.Tensor, valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each dropped token joins its most cosine-similar kept token; a kept token becomes the mean of itself and what joined it.

        kept           1 5          of tokens 0 to 5
        merged_into    0 0 1 0 1 1  rows 0 and 1 each hold three tokens

    Similarities and means are computed in float32 at least. Of equally similar tokens the first wins. Padding joins
    nothing, and nothing joins padding that was kept for want of anything else.

    Args:
        tokens: [tiles, N, hidden].
        kept: [tiles, T], int64, ascending.
        valid: which tokens are not padding, [tiles, N], bool; None: all.

    Returns:
        The merged tokens [tiles, T, hidden] in the dtype of `tokens`, and `merged_into` [tiles, N], int64; what it says of
        dropped padding means nothing.
    """
    wide = _at_least_float32(tokens)
    # Its own length makes a token no more similar to one than to another, so only those kept are made unit vectors.
    unit = functional.normalize(gather_rows(wide, kept), dim=-1)
    similarity = wide @ unit.transpose(1, 2)  # [tiles, N, T]
    if valid is not None:
        similarity = similarity.masked_fill(~valid.gather(1, kept)[:, None], float("-inf"))
    own = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    merged_into = similarity.argmax(dim=-1).scatter_(1, kept, own)
    counted = None if valid is None else valid.scatter(1, kept, True)
    return mean_rows(tokens, merged_into, kept.shape[1], counted), merged_into


def mean_rows(tokens: torch.Tensor, into: torch.Tensor, count: int, counted: torch.Tensor | None = None) -> torch.Tensor:
    """The mean of the tokens that go into each row.

    Args:
        tokens: [tiles, N, hidden].
        into: [tiles, N], int64, below `count`; every row gets at least one token.
        counted: which tokens go into the means, [tiles, N], bool; None: all.

    Returns:
        [tiles, count, hidden], in the dtype of `tokens`.
    """
    tiles, _, hidden = tokens.shape
    wide = _at_least_float32(tokens)
    rows = (into + count * torch.arange(tiles, device=into.device)[:, None]).flatten()
    weights = wide.new_ones(rows.shape[0])
    if counted is not None:
        weights = counted.flatten().to(wide.dtype)
        wide = wide * counted[:, :, None]
    sums = wide.new_zeros(tiles * count, hidden).index_add_(0, rows, wide.flatten(0, 1))
    members = wide.new_zeros(tiles * count).index_add_(0, rows, weights)
    return (sums / members[:, None]).view(tiles, count, hidden).to(tokens.dtype)


def gather_rows(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows `indices` [tiles, T] of `tokens` [tiles, N, hidden]: [tiles, T, hidden]."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], indices]


def _at_least_float32(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))
