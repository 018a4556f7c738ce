"""Attention over packed rows against each sequence alone, and what rows receive against the whole matrix of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from encoder_service.vision.packed_attention import PackedSequences, received_scores

HEADS, SIZE, SCALING = 3, 8, 0.4
CPU = torch.device("cpu")
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def rows(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(HEADS, count, SIZE, generator=generator) for _ in range(3)]


def weights(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """All of them, [heads, rows, rows]."""
    return (query.double() @ key.double().transpose(1, 2) * SCALING).softmax(dim=-1)


@given(lengths=lengths)
@settings(max_examples=60, deadline=None)
def test_each_sequence_attends_to_itself_alone(lengths: list[int]) -> None:
    query, key, value = rows(sum(lengths))
    attended = PackedSequences(lengths, CPU).attend(query, key, value, SCALING)
    start = 0
    for length in lengths:
        q, k, v = (part[:, start : start + length] for part in (query, key, value))
        alone = (weights(q, k) @ v.double()).transpose(0, 1)
        torch.testing.assert_close(attended[start : start + length].double(), alone, rtol=0, atol=1e-5)
        start += length


@given(lengths=lengths, block=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_received_scores_are_column_means_of_the_whole_matrix(lengths: list[int], block: int) -> None:
    query, key, _ = rows(sum(lengths))
    received = received_scores(query, key, SCALING, PackedSequences(lengths, CPU), block_weights=block)
    start = 0
    for length in lengths:
        q, k = (part[:, start : start + length] for part in (query, key))
        columns = weights(q, k).sum(dim=0).mean(dim=0)
        torch.testing.assert_close(received[start : start + length].double(), columns, rtol=0, atol=1e-5)
        start += length


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize("count", [256, 512, 1024, 2048])
def test_memory_grows_with_the_rows_and_not_with_their_square(count: int) -> None:
    query, key, _ = rows(count)
    with Largest() as largest:  # type: ignore[no-untyped-call]
        received_scores(query, key, SCALING, PackedSequences([count], CPU), block_weights=HEADS * 512)
    assert largest.elements <= HEADS * max(512, SIZE * count)
    assert largest.elements < count * count
