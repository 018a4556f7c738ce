"""The rows of a page are as few as the kernel reads, found by asking it; a kernel that refuses or errs is not believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from decoder_service.kv_cache.segments import KvShape
from decoder_service.runner import varlen
from tests.support.varlen import plain_varlen

CPU = torch.device("cpu")
SHAPE = KvShape(3, 8, 24, 2)


def refuses(queries: torch.Tensor, keys: torch.Tensor, *given: Any, **told: Any) -> torch.Tensor:
    raise RuntimeError("Paged KV cache block size must be divisible by 256")


def forgets_the_table(
    queries: torch.Tensor, keys: torch.Tensor, *given: Any, block_table: torch.Tensor, **told: Any
) -> torch.Tensor:
    in_order = torch.arange(block_table.numel(), dtype=torch.int32).view_as(block_table) % keys.shape[0]
    return plain_varlen(queries, keys, *given, block_table=in_order, **told)


def reads_a_row_too_few(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *given: Any, **told: Any
) -> torch.Tensor:
    values = values.clone()
    values[:, -1] = 0
    return plain_varlen(queries, keys, values, *given, **told)


def is_no_number(queries: torch.Tensor, *given: Any, **told: Any) -> torch.Tensor:
    return torch.full_like(queries, torch.nan)


@pytest.fixture(autouse=True)
def a_kernel_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, int], None]:
    """Told a kernel and the fewest rows of a page from which on it is right."""
    monkeypatch.setattr(varlen, "serves", lambda device, dtype: True)
    monkeypatch.setattr(varlen, "_TAKES_PAGES", True)

    def kernel(wrong: Any, right_from: int) -> None:
        def of_size(queries: torch.Tensor, keys: torch.Tensor, *given: Any, **told: Any) -> torch.Tensor:
            answer: torch.Tensor = (plain_varlen if keys.shape[1] >= right_from else wrong)(queries, keys, *given, **told)
            return answer

        monkeypatch.setattr(varlen, "_KERNEL", of_size)

    return kernel


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrong", [refuses, forgets_the_table, reads_a_row_too_few, is_no_number])
@pytest.mark.parametrize("right_from", [16, 64])
def test_blocks_have_the_fewest_rows_that_are_read_right(
    right_from: int, wrong: Any, dtype: torch.dtype, a_kernel_of_the_cpu: Callable[[Any, int], None]
) -> None:
    a_kernel_of_the_cpu(wrong, right_from)
    assert varlen.block_rows(SHAPE, dtype, CPU) == right_from
    assert not varlen.reads_pages(8, SHAPE, dtype, CPU)
    assert varlen.reads_pages(right_from + 16, SHAPE, dtype, CPU)


def test_a_kernel_that_reads_no_pages_is_given_gathered_rows_of_small_blocks(
    a_kernel_of_the_cpu: Callable[[Any, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_kernel_of_the_cpu(refuses, 512)
    assert varlen.block_rows(SHAPE, torch.bfloat16, CPU) == 16
    assert not varlen.reads_pages(256, SHAPE, torch.bfloat16, CPU)
    a_kernel_of_the_cpu(refuses, 0)
    monkeypatch.setattr(varlen, "_TAKES_PAGES", False)  # as in torch releases before block tables
    assert not varlen.reads_pages(256, SHAPE, torch.bfloat16, CPU)


def test_a_kernel_that_breaks_the_device_stops_the_start(a_kernel_of_the_cpu: Callable[[Any, int], None]) -> None:
    def breaks(*given: Any, **told: Any) -> torch.Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    a_kernel_of_the_cpu(breaks, 512)
    with pytest.raises(torch.AcceleratorError):
        varlen.block_rows(SHAPE, torch.bfloat16, CPU)


def test_on_a_cpu_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert varlen.block_rows(SHAPE, torch.float32, CPU) == 16
    assert not varlen.reads_pages(256, SHAPE, torch.bfloat16, CPU)
