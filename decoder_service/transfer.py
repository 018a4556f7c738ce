"""Small tensors on their way to the device."""

from __future__ import annotations

import torch


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` of the CPU on `device`, copied from pinned memory, so that nobody waits for what the device does just now."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
