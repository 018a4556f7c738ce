"""Attention of a packed step over our own keys and values, behind transformers' attention interface.

A step's rows lie one after the other, each sequence's together:

    rows      a a a a b c c          spans: a = 0..4 (a piece of a prompt), b = 4..5 (a decode row), c = 5..7
    total     a: 4  b: 212  c: 92    rows that the segment holds of each once these are written

Row i of n new rows sees the context before the step and rows 0..i: a causal mask aligned to the bottom right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from decoder_service.kv_cache.storage import KvStorage, Rows
from decoder_service.kv_cache.table import BlockTable, Run
from decoder_service.runner import sdpa, varlen

if TYPE_CHECKING:
    from decoder_service.runner.decode_graph import FixedPlan

NAME = "vscan"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` to `end` of the step belong to one sequence; `table` has room for the `total` rows there will be.

    `samples`: its last row's output is needed behind the last layer.
    """

    start: int
    end: int
    table: BlockTable
    total: int
    samples: bool = True

    @property
    def rows(self) -> int:
        """New rows."""
        return self.end - self.start

    @property
    def own_rows(self) -> tuple[int, int]:
        """New rows, as rows of the segment."""
        return self.total - self.rows, self.total


@dataclass(frozen=True, slots=True)
class _Asking:
    """Queries `start` to `end` are asked by one sequence; its context lies in `runs[g]` in the layers of group g."""

    start: int
    end: int
    table: BlockTable
    total: int
    runs: list[list[Run]]
    mask: torch.Tensor | None = None


class AttentionPlan:
    """How the rows of one step attend in one segment. Reaches the attention function as the keyword argument `plan`.

    Indices and masks are made once, for all layers that share them.
    """

    def __init__(self, spans: Sequence[Span], storage: KvStorage) -> None:
        self._storage = storage
        groups = range(spans[0].table.groups if spans else 0)
        single = all(span.rows == 1 for span in spans)
        written = _single_rows if single else _rows
        self._writes: list[Rows] = [written(spans, group, storage) for group in groups]
        sampling = [span for span in spans if span.samples]
        # Where every row is asked for they are as they lie.
        all_asked = single and len(sampling) == len(spans)
        self._last_rows: Rows = slice(None) if all_asked else storage.index([span.end - 1 for span in sampling])
        self._varlen: dict[tuple[int, bool], varlen.PagedContext | varlen.GatheredContext] = {}
        contexts = [[span.table.runs(0, span.total, group) for group in groups] for span in spans]
        self._all = [
            _Asking(span.start, span.end, span.table, span.total, runs, self._mask(span))
            for span, runs in zip(spans, contexts, strict=True)
        ]
        asked_last = [(one.table, one.total, one.runs) for one, span in zip(self._all, spans, strict=True) if span.samples]
        self._last = [_Asking(row, row + 1, *asked) for row, asked in enumerate(asked_last)]

    def last_rows(self) -> Rows:
        """Rows of the step whose output is needed behind the last layer."""
        return self._last_rows

    def attend(
        self,
        layer: int,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        *,
        last_rows_only: bool = False,
    ) -> torch.Tensor:
        """Writes the new keys and values of `layer` and attends.

        Args:
            layer: index in the model.
            queries: [heads, rows, head_dim], rotated; of `last_rows` alone where these are all that is asked for.
            keys: [kv heads, rows, head_dim], rotated.
            values: as keys.

        Returns:
            [rows, heads, head_dim], of the rows that ask.
        """
        group = self._storage.group_of(layer)
        self._storage.write(layer, self._writes[group], keys, values)
        asking = self._last if last_rows_only else self._all
        if not asking:
            return queries.transpose(0, 1)
        if varlen.serves(queries.device, queries.dtype):
            return self._attend_varlen(layer, group, last_rows_only, queries, scaling)
        all_keys, all_values = self._storage.by_head(layer)
        parts = [
            sdpa.attend(queries[:, one.start : one.end], all_keys, all_values, one.runs[group], scaling, one.mask)
            for one in asking
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).transpose(0, 1)

    def _mask(self, span: Span) -> torch.Tensor | None:
        # The causal kernel looks at half of what a mask looks at: it is faster until more came before than is new.
        if span.rows == 1 or 2 * span.rows > span.total or varlen.serves(self._storage.device, self._storage.dtype):
            return None
        return sdpa.bottom_right_causal(span.rows, span.total, self._storage.device)

    def _attend_varlen(self, layer: int, group: int, last: bool, queries: torch.Tensor, scaling: float) -> torch.Tensor:
        """All sequences in one kernel call, which is causal and aligned to the bottom right."""
        if (group, last) not in self._varlen:
            asked = [(one.end - one.start, one.table, one.total) for one in (self._last if last else self._all)]
            self._varlen[group, last] = varlen.context_of(asked, group, self._storage, queries.dtype)
        return self._varlen[group, last].attend(queries.transpose(0, 1), *self._storage.planes(layer), scaling)


def _rows(spans: Sequence[Span], group: int, storage: KvStorage) -> Rows:
    """Where the new rows of a step go."""
    return storage.rows(run for span in spans for run in span.table.runs(*span.own_rows, group))


def _single_rows(spans: Sequence[Span], group: int, storage: KvStorage) -> Rows:
    """The same for one row of each sequence, in fewer steps."""
    return storage.index([span.table.place(span.total - 1, group) for span in spans])


def register_attention() -> str:
    """Makes the function below known to transformers, and says under which name."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    return NAME


def leave_attention_uncompiled() -> None:
    """For layers that are compiled: this is kernels and indices, and a plan that differs from step to step."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, torch.compiler.disable(_attention))  # type: ignore[no-untyped-call]


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    plan: AttentionPlan | FixedPlan,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, rows, head_dim], key and value [1, kv heads, rows, head_dim] → [1, rows, heads, head_dim]."""
    return plan.attend(module.layer_idx, query[0], key[0], value[0], scaling)[None], None
