"""Attention of a packed step equals attention of each sequence alone, written out."""

import math

import pytest
import torch

from decoder_service.kv_cache.blocks import Block
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.kv_cache.table import BlockTable
from decoder_service.runner import varlen
from decoder_service.runner.attention import AttentionPlan, Span
from tests.support.varlen import plain_varlen, written_out

WIDTH = 8


# The pages of four sequences, in order: as a CPU likes them, and as they come.
TOGETHER = [[0, 1], [2, 3, 4], [5, 6], [7]]
SCATTERED = [[6, 3], [0, 1, 9], [4, 8], [2]]


@pytest.mark.parametrize("pages", [TOGETHER, SCATTERED])
@pytest.mark.parametrize("kernel", ["sdpa", "varlen", "paged varlen"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
def test_a_packed_step_equals_each_sequence_alone(
    heads: int, kv_heads: int, kernel: str, pages: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel != "sdpa":
        monkeypatch.setattr(varlen, "_KERNEL", plain_varlen)
        monkeypatch.setattr(varlen, "serves", lambda device, dtype: True)
        monkeypatch.setattr(varlen, "pages_serve", lambda storage, dtype: kernel == "paged varlen")
    generator = torch.Generator().manual_seed(heads + kv_heads)

    def draw(rows: int, count: int) -> torch.Tensor:
        return torch.randn((rows, count, WIDTH), generator=generator, dtype=torch.float64)

    layout = PageLayout(split_layers(2, (1,)), 4, KvShape(kv_heads, WIDTH, 2, 8))
    storage = KvStorage(layout, pages=10, dtype=torch.float64, device=torch.device("cpu"))
    # (rows before the step, rows of the step): a prompt, a decode row, a later piece of a prompt, a prompt of one row
    lengths = [(0, 5), (9, 1), (4, 3), (0, 1)]
    spans, whole, start = [], [], 0
    for (before, new), own in zip(lengths, pages, strict=True):
        table = BlockTable(0, 4, 1, None, ("", 0))
        table.append(Block(0, (page,)) for page in own)
        keys, values = draw(before + new, kv_heads), draw(before + new, kv_heads)
        all_keys, all_values = storage.planes(0)
        places = table.places(range(before))
        all_keys[places], all_values[places] = keys[:before], values[:before]
        spans.append(Span(start, start + new, table, before + new, samples=new != 5))
        whole.append((keys, values))
        start += new
    queries = draw(start, heads)
    new_keys = torch.cat([keys[before:] for (before, _), (keys, _) in zip(lengths, whole, strict=True)]).transpose(0, 1)
    new_values = torch.cat([values[before:] for (before, _), (_, values) in zip(lengths, whole, strict=True)]).transpose(0, 1)
    plan = AttentionPlan(spans, storage)

    attended = plan.attend(0, queries.transpose(0, 1), new_keys, new_values, 1 / math.sqrt(WIDTH))

    expected = torch.cat([written_out(queries[s.start : s.end], *w) for s, w in zip(spans, whole, strict=True)])
    torch.testing.assert_close(attended, expected)

    asked = plan.last_rows()
    assert isinstance(asked, torch.Tensor)
    assert asked.tolist() == [5, 8, 9]
    last = plan.attend(0, queries[asked].transpose(0, 1), new_keys, new_values, 1 / math.sqrt(WIDTH), last_rows_only=True)
    torch.testing.assert_close(last, expected[asked])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pages", [[6, 3, 9], [6, 7, 3], [9, 1, 5]])
def test_in_half_precision_no_bit_depends_on_where_rows_lie(pages: list[int], dtype: torch.dtype) -> None:
    layout = PageLayout(split_layers(1, ()), 4, KvShape(2, WIDTH, 2 * WIDTH, 2))
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn((2, 12, WIDTH), generator=generator).to(dtype) for _ in range(2))
    query = torch.randn((4, 1, WIDTH), generator=generator).to(dtype)

    def attended(pages: list[int]) -> torch.Tensor:
        storage = KvStorage(layout, pages=10, dtype=dtype, device=torch.device("cpu"))
        table = BlockTable(0, 4, 1, None, ("", 0))
        table.append(Block(0, (page,)) for page in pages)
        storage.write(0, storage.rows(table.runs(0, 11)), keys[:, :11], values[:, :11])
        return AttentionPlan([Span(0, 1, table, 12)], storage).attend(0, query, keys[:, 11:], values[:, 11:], WIDTH**-0.5)

    assert torch.equal(attended(pages), attended([0, 1, 2]))
