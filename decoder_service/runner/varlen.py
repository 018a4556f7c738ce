"""torch's variable-length kernel: all sequences of a step in one call, causal, aligned to the bottom right. CUDA, 16 bits."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from decoder_service.kv_cache.segments import KvShape
from decoder_service.kv_cache.storage import KvStorage, Rows
from decoder_service.kv_cache.table import BlockTable
from decoder_service.runner.page_probe import Question, questions
from vscan.transfer import to_device

logger = logging.getLogger(__name__)

# Rows that a page may have, the fewest first: prefixes are reused by whole blocks. FlashAttention-2 takes multiples of 256.
_PAGE_ROWS = (16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class _Context:
    """What the variable-length kernel is told of a step; the same in all layers of a group."""

    new_bounds: torch.Tensor  # [sequences + 1], int32, cumulative
    all_bounds: torch.Tensor
    most_new: int
    most_all: int

    def _call(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, **told: Any
    ) -> torch.Tensor:
        bounds = (self.new_bounds, self.all_bounds, self.most_new, self.most_all)
        causal = {"scale": scaling, "window_size": (-1, 0)}
        attended: torch.Tensor = _KERNEL(queries.contiguous(), keys, values, *bounds, **causal, **told)
        return attended


@dataclass(frozen=True, slots=True)
class PagedContext(_Context):
    """The kernel reads the pages itself."""

    block_rows: int
    table: torch.Tensor  # [sequences, most blocks], int32: pages in order
    totals: torch.Tensor  # [sequences], int32: rows of each sequence

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        """queries [rows, heads, head_dim] over planes [all rows, kv heads, head_dim] → as queries."""
        keys, values = (plane.view(-1, self.block_rows, *plane.shape[1:]) for plane in (keys, values))
        grouped = queries.shape[1] != keys.shape[2]
        told = {"block_table": self.table, "seqused_k": self.totals, "num_splits": 1, "enable_gqa": grouped}
        return self._call(queries, keys, values, scaling, **told)


@dataclass(frozen=True, slots=True)
class GatheredContext(_Context):
    """The rows are gathered first, sequence after sequence."""

    rows: Rows

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        """As `PagedContext.attend`."""
        keys, values = keys[self.rows], values[self.rows]
        groups = queries.shape[1] // keys.shape[1]
        if groups > 1:  # not every torch release takes grouped heads here
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        return self._call(queries, keys, values, scaling)


# One sequence in a step: its queries, its table, and the rows of its context.
Asked = tuple[int, BlockTable, int]


def context_of(asked: Sequence[Asked], group: int, storage: KvStorage, dtype: torch.dtype) -> PagedContext | GatheredContext:
    """For the sequences of one step, in the layers of one group."""
    new, totals = [count for count, _, _ in asked], [total for _, _, total in asked]
    if not pages_serve(storage, dtype):
        rows = storage.rows(run for _, table, total in asked for run in table.runs(0, total, group))
        return GatheredContext(*_bounds(new, totals, storage.device), max(new), max(totals), rows)
    size = storage.layout.block_rows
    pages = [[block.pages[group] for block in table.blocks[: -(-total // size)]] for _, table, total in asked]
    return _paged(new, totals, pages, size, storage.device)


def pages_serve(storage: KvStorage, dtype: torch.dtype) -> bool:
    """Whether a kernel reads pages itself: a matter of the device, of the torch release and of the pages' size."""
    return reads_pages(storage.layout.block_rows, storage.layout.shape, dtype, storage.device)


def block_rows(shape: KvShape, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of a block, where nobody said: the fewest of which the kernel reads pages here; where it reads none, 16."""
    return next((rows for rows in _PAGE_ROWS if reads_pages(rows, shape, dtype, device)), _PAGE_ROWS[0])


def reads_pages(rows: int, shape: KvShape, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel reads pages of so many rows, and right: it is tried, once.

    Raises:
        torch.AcceleratorError: it broke the device.
    """
    return serves(device, dtype) and _TAKES_PAGES and _answers(_KERNEL, rows, shape.kv_heads, shape.head_dim, dtype, device)


def serves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for this."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and _KERNEL is not None


@cache
def _answers(kernel: Any, rows: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `kernel` (that is `_KERNEL`: of another one nothing is known yet) answers all questions."""
    asked = questions(rows, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype, device=device)
    return all(_answered(question, rows) for question in asked)


def _answered(question: Question, rows: int) -> bool:
    context = _paged(question.new, question.totals, question.pages, rows, question.queries.device)
    try:
        attended = context.attend(question.queries, question.keys, question.values, question.queries.shape[-1] ** -0.5)
        return question.is_answered_by(attended)
    except torch.AcceleratorError:  # not an answer: nothing more can be asked
        raise
    except Exception as error:
        logger.debug("the attention kernel takes no pages of %d rows: %s", rows, error)
        return False


def _paged(
    new: Sequence[int], totals: Sequence[int], pages: Sequence[Sequence[int]], size: int, device: torch.device
) -> PagedContext:
    longest = max(map(len, pages))
    table = _integers([[*row, *[0] * (longest - len(row))] for row in pages], device)
    return PagedContext(*_bounds(new, totals, device), max(new), max(totals), size, table, _integers(totals, device))


def _bounds(new: Sequence[int], totals: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cumulative, from 0."""
    new_bounds, all_bounds = (_integers([0, *lengths], device).cumsum(0, dtype=torch.int32) for lengths in (new, totals))
    return new_bounds, all_bounds


def _integers(values: Any, device: torch.device) -> torch.Tensor:
    return to_device(torch.tensor(values, dtype=torch.int32), device)


def _find_kernel() -> tuple[Any, bool]:
    """The kernel, if this torch release has one that we can use, and whether it takes block tables."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None, False
    takes = inspect.signature(varlen_attn).parameters
    if not {"window_size", "scale"} <= takes.keys():
        return None, False
    return varlen_attn, {"block_table", "seqused_k", "num_splits", "enable_gqa"} <= takes.keys()


_KERNEL, _TAKES_PAGES = _find_kernel()
