"""Attention of a packed step equals attention of each sequence alone, written out."""

import math
from itertools import pairwise

import pytest
import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import SegmentKv
from decoder_service.runner import attention
from decoder_service.runner.attention import AttentionPlan, Span

WIDTH = 8


def written_out(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The last rows of `keys` are the queries' own; each sees the rows up to its own."""
    new, heads, _ = queries.shape
    total, kv_heads, _ = keys.shape
    result = torch.zeros_like(queries)
    for row in range(new):
        seen = total - new + row + 1
        for head in range(heads):
            own = head * kv_heads // heads
            weights = (keys[:seen, own] @ queries[row, head] / math.sqrt(WIDTH)).softmax(dim=0)
            result[row, head] = weights @ values[:seen, own]
    return result


def plain_varlen(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bounds_new: torch.Tensor,
    bounds_all: torch.Tensor,
    longest_new: int,
    longest_all: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """What torch's variable-length kernel computes, for checking on a CPU what it is given."""
    assert (scale, window_size) == (1 / math.sqrt(WIDTH), (-1, 0))
    assert bounds_new.dtype == bounds_all.dtype == torch.int32
    assert (longest_new, longest_all) == (int(bounds_new.diff().max()), int(bounds_all.diff().max()))
    new, whole = list(pairwise(bounds_new.tolist())), list(pairwise(bounds_all.tolist()))
    parts = [
        written_out(queries[low:high], keys[first:last], values[first:last])
        for (low, high), (first, last) in zip(new, whole, strict=True)
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("kernel", ["sdpa", "varlen"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
def test_a_packed_step_equals_each_sequence_alone(
    heads: int, kv_heads: int, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "varlen":
        monkeypatch.setattr(attention, "_VARLEN", plain_varlen)
        monkeypatch.setattr(attention, "_varlen_serves", lambda queries: True)
    generator = torch.Generator().manual_seed(heads + kv_heads)

    def draw(rows: int, count: int) -> torch.Tensor:
        return torch.randn((rows, count, WIDTH), generator=generator, dtype=torch.float64)

    # (rows before the step, rows of the step): a prompt, a decode row, a later piece of a prompt, a prompt of one row
    lengths = [(0, 5), (9, 1), (4, 3), (0, 1)]
    segment = Segment(0, 0, 1)
    spans, whole, start = [], [], 0
    for before, new in lengths:
        kv = SegmentKv(segment, kv_heads=kv_heads, head_dim=WIDTH, dtype=torch.float64, device=torch.device("cpu"))
        keys, values = draw(before + new, kv_heads), draw(before + new, kv_heads)
        kv.reserve(before)
        kv.write(0, keys[:before], values[:before])
        kv.commit(before)
        kv.reserve(new)
        spans.append(Span(start, start + new, kv))
        whole.append((keys, values))
        start += new
    queries = draw(start, heads)
    new_keys = torch.cat([keys[before:] for (before, _), (keys, _) in zip(lengths, whole, strict=True)])
    new_values = torch.cat([values[before:] for (before, _), (_, values) in zip(lengths, whole, strict=True)])

    attended = AttentionPlan(spans).attend(0, queries, new_keys, new_values, 1 / math.sqrt(WIDTH))

    expected = [written_out(queries[s.start : s.end], *w) for s, w in zip(spans, whole, strict=True)]
    torch.testing.assert_close(attended, torch.cat(expected))
