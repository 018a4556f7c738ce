"""What is copied to a device is pinned as rows that follow each other; on a CPU nothing is copied."""

from __future__ import annotations

import pytest
import torch

from vscan.transfer import refill, to_device

META = torch.device("meta")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What was pinned, where there is no device to pin memory for."""
    seen: list[torch.Tensor] = []

    def pin_memory(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory, raising=False)
    return seen


@pytest.mark.parametrize(
    "values",
    [torch.arange(4), torch.arange(4).expand(3, -1), torch.arange(12).view(3, 4)[:, 1:3], torch.arange(12).view(3, 4).T],
    ids=["a row", "repeated", "cut", "turned"],
)
def test_rows_are_pinned_one_after_the_other(values: torch.Tensor, pinned: list[torch.Tensor]) -> None:
    assert to_device(values, META).shape == values.shape
    refill(torch.empty(values.shape, dtype=values.dtype, device=META), values)
    assert len(pinned) == 2
    for own in pinned:
        assert own.is_contiguous()
        assert torch.equal(own, values)


def test_on_a_cpu_values_are_where_they_are(pinned: list[torch.Tensor]) -> None:
    values = torch.arange(4)
    assert to_device(values, torch.device("cpu")) is values
    target = torch.zeros(4, dtype=torch.int64)
    refill(target, values)
    assert torch.equal(target, values)
    assert not pinned
