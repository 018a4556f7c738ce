"""Small questions to a kernel that is said to read pages: does it, of so many rows, and are the answers right?

    page rows 4     contexts of 1, 5, 8 and many rows, in pages that lie anywhere
    new rows        of each the last, as in a decode step; or several, as in a piece of a prompt

The long context is there because a kernel may split it: FlashAttention-2 fails to put together what it split of packed rows. It
is told not to split, and this shows whether it heeds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# What half precision may be off by, for numbers around 1; a page mistaken for another is off by many times that.
_TOLERANCE = 2e-2
_GROUPS = (1, 4)  # heads of queries that share one of keys
_MOST_KV_HEADS = 2
_LONG_ROWS = 1024
_MOST_NEW = 20


@dataclass(frozen=True, slots=True)
class Question:
    """As `varlen.PagedContext` is asked, and the answer."""

    queries: torch.Tensor  # [rows, heads, head_dim]
    keys: torch.Tensor  # [rows of all pages, kv heads, head_dim]
    values: torch.Tensor
    new: list[int]  # of each sequence
    totals: list[int]
    pages: list[list[int]]
    answer: torch.Tensor  # as `queries`, float32

    def is_answered_by(self, attended: torch.Tensor) -> bool:
        """Whether these are the numbers."""
        close = torch.isclose(attended.to(torch.float32), self.answer, rtol=_TOLERANCE, atol=_TOLERANCE)
        return bool(close.all())


def questions(page_rows: int, *, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Iterator[Question]:
    """All that the engine will ask: decode steps and others, with heads that share keys and without."""
    generator = torch.Generator().manual_seed(page_rows)
    long_pages = max(3, _LONG_ROWS // page_rows)
    totals = [1, page_rows + 1, 2 * page_rows, (long_pages - 1) * page_rows + page_rows // 2 + 1]
    order = torch.randperm(5 + long_pages, generator=generator).tolist()
    pages = [order[:1], order[1:3], order[3:5], order[5:]]
    kv_heads = min(kv_heads, _MOST_KV_HEADS)

    def draw(rows: int, heads: int) -> torch.Tensor:
        return torch.randn((rows, heads, head_dim), generator=generator).to(device=device, dtype=dtype)

    keys, values = draw(len(order) * page_rows, kv_heads), draw(len(order) * page_rows, kv_heads)
    contexts = [
        [_rows(plane, own, page_rows, total) for plane in (keys, values)] for own, total in zip(pages, totals, strict=True)
    ]
    for groups in _GROUPS:
        for new in ([1, 1, 1, 1], [1, 3, 1, min(page_rows // 2 + 2, _MOST_NEW)]):
            queries = draw(sum(new), groups * kv_heads)
            asked = zip(torch.split(queries, new), contexts, strict=True)
            answer = torch.cat([_attention(rows, *context) for rows, context in asked])
            yield Question(queries, keys, values, new, totals, pages, answer)


def _rows(plane: torch.Tensor, pages: list[int], page_rows: int, total: int) -> torch.Tensor:
    """The rows of one sequence, gathered, [total, kv heads, head_dim]."""
    return torch.cat([plane[page * page_rows : (page + 1) * page_rows] for page in pages])[:total]


def _attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of the last rows of one sequence, in float32; all [rows, heads, head_dim]."""
    groups, (new, total) = queries.shape[1] // keys.shape[1], (queries.shape[0], keys.shape[0])
    asked = queries.to(torch.float32).transpose(0, 1)
    known, said = (plane.to(torch.float32).repeat_interleave(groups, dim=1).transpose(0, 1) for plane in (keys, values))
    seen = torch.ones((new, total), dtype=torch.bool, device=keys.device).tril(total - new)
    scores = (asked @ known.transpose(1, 2) / queries.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    attended: torch.Tensor = scores.softmax(dim=-1) @ said
    return attended.transpose(0, 1)
