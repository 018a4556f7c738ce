"""Merging dropped tokens into kept ones (VScan, arXiv 2505.22654, section 3). Runs after the projector."""

from __future__ import annotations

import torch

_LEAST_LENGTH = 1e-12  # of a token of zeros, which is similar to none


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
    # A token's own length makes it no more similar to one than to another, so only those of kept tokens count.
    targets = gather_rows(tokens, kept)
    lengths = torch.linalg.vector_norm(targets, dim=-1, dtype=_wide(tokens.dtype)).clamp(min=_LEAST_LENGTH)
    similarity = _product(tokens, targets.transpose(1, 2)) / lengths[:, None]  # [tiles, N, T]
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
    sums = _sums_by_product if tokens.is_cuda else _sums_by_index
    summed, members = sums(tokens, into, count, counted)
    return (summed / members[..., None]).to(tokens.dtype)


def _sums_by_index(
    tokens: torch.Tensor, into: torch.Tensor, count: int, counted: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row the sum of its tokens [tiles, count, hidden], and how many they are [tiles, count]."""
    tiles, _, hidden = tokens.shape
    wide = tokens.to(_wide(tokens.dtype))
    rows = (into + count * torch.arange(tiles, device=into.device)[:, None]).flatten()
    weights = wide.new_ones(rows.shape[0])
    if counted is not None:
        weights = counted.flatten().to(wide.dtype)
        wide = wide * counted[:, :, None]
    sums = wide.new_zeros(tiles * count, hidden).index_add_(0, rows, wide.flatten(0, 1))
    members = wide.new_zeros(tiles * count).index_add_(0, rows, weights)
    return sums.view(tiles, count, hidden), members.view(tiles, count)


def _sums_by_product(
    tokens: torch.Tensor, into: torch.Tensor, count: int, counted: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same. A GPU multiplies faster than its threads add to one place in turn, and always to the same bits."""
    joins = into[:, None] == torch.arange(count, device=into.device)[:, None]  # [tiles, count, N]
    if counted is not None:
        joins = joins & counted[:, None]
    return _product(joins.to(tokens.dtype), tokens), joins.sum(dim=2)


def gather_rows(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows `indices` [tiles, T] of `tokens` [tiles, N, hidden]: [tiles, T, hidden]."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], indices]


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A batched matrix product, summed up and returned in float32 at least."""
    if left.is_cuda and _wide(left.dtype) is not left.dtype:  # without copies of the operands in a wider type
        return torch.bmm(left, right, out_dtype=torch.float32)
    return left.to(_wide(left.dtype)) @ right.to(_wide(right.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
