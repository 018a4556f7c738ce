"""Small questions to a kernel that is said to read pages: does it, of so many rows, and are the answers right?

page rows 4     contexts of 1, 5, 8 and 11 rows in pages that lie anywhere
new rows        of each the last, as in a decode step; or several, as in a piece of a prompt
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# What half precision may be off by, for numbers around 1; a page mistaken for another is off by many times that.
_TOLERANCE = 2e-2
_GROUPS = (1, 4)  # heads of queries that share one of keys
_MOST_KV_HEADS = 2
_PAGES = 10  # there are


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
    totals = [1, page_rows + 1, 2 * page_rows, 2 * page_rows + page_rows // 2 + 1]
    pages = [[6], [3, 9], [0, 8], [7, 1, 4]]
    kv_heads = min(kv_heads, _MOST_KV_HEADS)

    def draw(rows: int, heads: int) -> torch.Tensor:
        return torch.randn((rows, heads, head_dim), generator=generator).to(device=device, dtype=dtype)

    keys, values = draw(_PAGES * page_rows, kv_heads), draw(_PAGES * page_rows, kv_heads)
    for groups in _GROUPS:
        for new in ([1, 1, 1, 1], [1, 3, 1, page_rows // 2 + 2]):
            queries = draw(sum(new), groups * kv_heads)
            answer = _attention(queries, keys, values, new, totals, pages)
            yield Question(queries, keys, values, new, totals, pages, answer)


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, new: list[int], totals: list[int], pages: list[list[int]]
) -> torch.Tensor:
    """Of each sequence its rows gathered, in float32."""
    page_rows, found, start = keys.shape[0] // _PAGES, [], 0
    for rows, total, own in zip(new, totals, pages, strict=True):
        there = torch.cat([torch.arange(page * page_rows, (page + 1) * page_rows) for page in own])[:total].to(keys.device)
        asked = queries[start : start + rows].to(torch.float32).transpose(0, 1)
        groups = asked.shape[0] // keys.shape[1]
        known, said = (
            each[there].to(torch.float32).repeat_interleave(groups, dim=1).transpose(0, 1) for each in (keys, values)
        )
        seen = torch.ones((rows, total), dtype=torch.bool, device=keys.device).tril(total - rows)
        scores = (asked @ known.transpose(1, 2) / queries.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        found.append((scores.softmax(dim=-1) @ said).transpose(0, 1))
        start += rows
    return torch.cat(found)
