"""Attention of a packed step over our own keys and values, behind transformers' attention interface.

A step's rows lie one after the other, each sequence's together:

    rows      a a a a b c c          spans: a = 0..4 (a prompt), b = 4..5 (a decode row), c = 5..7
    context   a: 0+4  b: 211+1  c: 90+2

Row i of n new rows sees the context before the step and rows 0..i: a causal mask aligned to the bottom right.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from decoder_service.kv_cache.storage import SegmentKv

NAME = "vscan"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` to `end` of the step belong to one sequence; `kv` has room for them."""

    start: int
    end: int
    kv: SegmentKv

    @property
    def rows(self) -> int:
        """New rows."""
        return self.end - self.start


class AttentionPlan:
    """How the rows of one step attend in one segment. Reaches the attention function as the keyword argument `plan`."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._new = [span.rows for span in spans]
        self._total = [span.kv.length + span.rows for span in spans]
        self._bounds: tuple[torch.Tensor, torch.Tensor] | None = None  # of new and of all rows, the same in every layer

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Writes the new keys and values of `layer` and attends.

        Args:
            queries: [rows, heads, head_dim], rotated.
            keys: [rows, kv heads, head_dim], rotated.
            values: as keys.

        Returns:
            [rows, heads, head_dim].
        """
        context = [span.kv.write(layer, keys[span.start : span.end], values[span.start : span.end]) for span in self._spans]
        if _varlen_serves(queries):
            return self._varlen(queries, context, scaling)
        parts = [
            _sdpa(queries[span.start : span.end], k, v, scaling) for span, (k, v) in zip(self._spans, context, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _varlen(
        self, queries: torch.Tensor, context: Sequence[tuple[torch.Tensor, torch.Tensor]], scaling: float
    ) -> torch.Tensor:
        """All sequences in one kernel call: contexts are gathered; the mask is causal and aligned to the bottom right."""
        keys = torch.cat([k for k, _ in context])
        values = torch.cat([v for _, v in context])
        groups = queries.shape[1] // keys.shape[1]
        if groups > 1:  # not every torch release takes grouped heads here
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        if self._bounds is None:
            self._bounds = _cumulative(self._new, queries.device), _cumulative(self._total, queries.device)
        attended: torch.Tensor = _VARLEN(
            queries.contiguous(),
            keys,
            values,
            *self._bounds,
            max(self._new),
            max(self._total),
            scale=scaling,
            window_size=(-1, 0),
        )
        return attended


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
    plan: AttentionPlan,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, rows, head_dim], key and value [1, kv heads, rows, head_dim] → [1, rows, heads, head_dim]."""
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return plan.attend(module.layer_idx, queries, keys, values, scaling)[None], None


def _sdpa(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
    """One sequence: n queries, the last n of its keys being their own."""
    new, total = queries.shape[0], keys.shape[0]
    # is_causal is aligned to the top left, so it is right only where nothing came before.
    mask = None if new in (1, total) else _bottom_right_causal(new, total, queries.device)
    attended = scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None and new > 1,
        scale=scaling,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    return attended[0].transpose(0, 1)


def _bottom_right_causal(new: int, total: int, device: torch.device) -> torch.Tensor:
    """True where a query may look; new = 2, total = 4:

    1 1 1 0
    1 1 1 1
    """
    return torch.ones((new, total), dtype=torch.bool, device=device).tril(total - new)


def _varlen_serves(queries: torch.Tensor) -> bool:
    return queries.is_cuda and queries.dtype in (torch.bfloat16, torch.float16) and _VARLEN is not None


def _cumulative(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def _find_varlen() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"window_size", "scale"} <= takes.keys() else None


_VARLEN = _find_varlen()
