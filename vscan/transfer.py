"""Small tensors on their way to the device."""

from __future__ import annotations

import torch


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` of the CPU on `device`, copied from pinned memory, so that nobody waits for what the device does just now.

    Nothing may be written into that memory before the copy is over: torch gives it out again only then.
    """
    return values if device.type == "cpu" else _pinned(values).to(device, non_blocking=True)


def refill(target: torch.Tensor, values: torch.Tensor) -> None:
    """`values` of the CPU into `target`, a tensor of the same shape that stays where it is; copied as `to_device` does."""
    target.copy_(values if target.device.type == "cpu" else _pinned(values), non_blocking=True)


def _pinned(values: torch.Tensor) -> torch.Tensor:
    """Rows that do not follow each other would be copied by way of memory that is not pinned; a repeated one not at all."""
    return values.contiguous().pin_memory()
