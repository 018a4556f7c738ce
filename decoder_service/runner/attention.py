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
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from decoder_service.kv_cache.storage import KvStorage, Rows
from decoder_service.kv_cache.table import BlockTable, Run
from decoder_service.runner import varlen

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
    """Queries `start` to `end` are asked by one sequence with `total` rows of context."""

    start: int
    end: int
    table: BlockTable
    total: int

    @property
    def count(self) -> int:
        return self.end - self.start


class AttentionPlan:
    """How the rows of one step attend in one segment. Reaches the attention function as the keyword argument `plan`.

    Indices and masks are made once for all layers that share them.
    """

    def __init__(self, spans: Sequence[Span], storage: KvStorage) -> None:
        self._spans = spans
        self._storage = storage
        self._all = [_Asking(span.start, span.end, span.table, span.total) for span in spans]
        sampling = [span for span in spans if span.samples]
        self._last = [_Asking(row, row + 1, span.table, span.total) for row, span in enumerate(sampling)]
        self._writes: dict[int, Rows] = {}
        self._contexts: dict[tuple[BlockTable, int], list[Run]] = {}
        self._masks: dict[BlockTable, torch.Tensor] = {}
        self._varlen: dict[tuple[int, bool], varlen.PagedContext | varlen.GatheredContext] = {}

    def last_rows(self) -> torch.Tensor:
        """Rows of the step whose output is needed behind the last layer, [n], int64 on the device."""
        return self._storage.index([span.end - 1 for span in self._spans if span.samples])

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
            queries: [rows, heads, head_dim], rotated; of `last_rows` alone where these are all that is asked for.
            keys: [rows, kv heads, head_dim], rotated.
            values: as keys.

        Returns:
            as queries.
        """
        group = self._storage.group_of(layer)
        all_keys, all_values = self._storage.planes(layer)
        written = self.written_rows(group)
        all_keys[written] = keys
        all_values[written] = values
        asking = self._last if last_rows_only else self._all
        if not asking:
            return queries
        if varlen.serves(queries.device, queries.dtype):
            return self._attend_varlen(group, last_rows_only, queries, all_keys, all_values, scaling)
        parts = [self._attend_one(one, group, queries, all_keys, all_values, scaling) for one in asking]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def written_rows(self, group: int = 0) -> Rows:
        """Where the step's rows go."""
        if group not in self._writes:
            self._writes[group] = self._storage.rows(
                run for span in self._spans for run in span.table.runs(*span.own_rows, group)
            )
        return self._writes[group]

    def _attend_one(
        self,
        one: _Asking,
        group: int,
        queries: torch.Tensor,
        all_keys: torch.Tensor,
        all_values: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """One sequence. Its context is read where it lies; only the rows of a piece that lie scattered are gathered."""
        own = queries[one.start : one.end]
        if (one.table, group) not in self._contexts:
            self._contexts[one.table, group] = one.table.runs(0, one.total, group)
        runs = self._contexts[one.table, group]
        keys = [all_keys[first : first + count] for first, count in runs]
        values = [all_values[first : first + count] for first, count in runs]
        if len(runs) == 1:
            return _sdpa(own, keys[0], values[0], scaling, self._mask(one))
        if one.count == 1:
            return _attend_scattered(own, keys, values, scaling)
        return _sdpa(own, torch.cat(keys), torch.cat(values), scaling, self._mask(one))

    def _mask(self, one: _Asking) -> torch.Tensor | None:
        # The causal kernel looks at half of what a mask looks at: it is faster until more came before than is new.
        if one.count == 1 or 2 * one.count > one.total:
            return None
        if one.table not in self._masks:
            self._masks[one.table] = _bottom_right_causal(one.count, one.total, self._storage.device)
        return self._masks[one.table]

    def _attend_varlen(
        self, group: int, last: bool, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """All sequences in one kernel call, which is causal and aligned to the bottom right."""
        if (group, last) not in self._varlen:
            asked = [(one.count, one.table, one.total) for one in (self._last if last else self._all)]
            self._varlen[group, last] = varlen.context_of(asked, group, self._storage, queries.dtype)
        return self._varlen[group, last].attend(queries, keys, values, scaling)


def register_attention() -> str:
    """Makes the function below known to transformers, and says under which name."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    return NAME


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
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return plan.attend(module.layer_idx, queries, keys, values, scaling)[None], None


def _sdpa(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """One sequence: n queries, the last n of its keys being their own."""
    before = 0 if mask is not None or queries.shape[0] == 1 else keys.shape[0] - queries.shape[0]
    if before:  # rows that nobody reads make the causal kernel's alignment to the top left right
        queries = functional.pad(queries, (0, 0, 0, 0, before, 0))
    attended = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None and queries.shape[0] > 1,
        scale=scaling,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    return attended[0].transpose(0, 1)[before:]


def _attend_scattered(
    query: torch.Tensor, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], scaling: float
) -> torch.Tensor:
    """One query over a context in several runs, without gathering it: [1, heads, head_dim] → the same."""
    heads, kv_heads = query.shape[1], keys[0].shape[1]
    asked = query.view(kv_heads, heads // kv_heads, -1) * scaling
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = torch.cat([torch.bmm(asked, run.permute(1, 2, 0)) for run in keys], dim=-1)  # [kv heads, heads of each, rows]
    weights = torch.split(scores.to(exact).softmax(dim=-1).to(query.dtype), [run.shape[0] for run in keys], dim=-1)
    attended = torch.bmm(weights[0], values[0].transpose(0, 1))
    for weight, run in zip(weights[1:], values[1:], strict=True):
        attended = torch.baddbmm(attended, weight, run.transpose(0, 1))
    return attended.reshape(1, heads, -1)


def _bottom_right_causal(new: int, total: int, device: torch.device) -> torch.Tensor:
    """True where a query may look; new = 2, total = 4:

    1 1 1 0
    1 1 1 1
    """
    return torch.ones((new, total), dtype=torch.bool, device=device).tril(total - new)
