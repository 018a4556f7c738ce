"""On a CUDA device: the kernel reads pages of the size that was found, and no others are believed. Run with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version

from decoder_service.runner import varlen
from tests.gpu.engines import (
    CUDA,
    FAMILIES,
    TOLERANCE,
    assert_same,
    engine_of,
    language,
    needs_pages,
    own_block_rows,
    questions,
)
from tests.support.engines import run_all

pytestmark = pytest.mark.gpu
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
def test_blocks_are_the_smallest_pages_that_are_read(dtype: torch.dtype) -> None:
    shape = language("llava15", dtype).kv_shape
    read = [rows for rows in varlen._PAGE_ROWS if varlen.reads_pages(rows, shape, dtype, CUDA)]
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(CUDA)}, {dtype}: pages of {read} rows are read")
    assert varlen.block_rows(shape, dtype, CUDA) == (read or [16])[0]
    if Version(torch.__version__) >= Version("2.13"):  # FlashAttention-2 is in it, and was given block tables
        assert 256 in read


def test_what_is_refused_leaves_the_device_as_it_was() -> None:
    shape = language("llava15", torch.bfloat16).kv_shape
    assert not varlen.reads_pages(7, shape, torch.bfloat16, CUDA) or varlen.reads_pages(16, shape, torch.bfloat16, CUDA)
    torch.cuda.synchronize(CUDA)
    assert torch.ones(3, device=CUDA).sum().item() == 3


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_pages_give_what_gathered_rows_give(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language(family, dtype)
    needs_pages(model)
    asked = questions(model, (300, 30, 96, 270))
    rows = own_block_rows(model)
    paged = run_all(engine_of(model, recorded=False), asked)
    monkeypatch.setattr(varlen, "pages_serve", lambda storage, dtype: False)
    gathered = run_all(engine_of(model, recorded=False, rows=rows), asked)
    for name, events in gathered.items():
        assert_same(paged[name], events, tolerance=TOLERANCE[dtype])
