"""Mixed precision for training: bfloat16 products, float32 weights."""

from __future__ import annotations

import torch


def fast(device: torch.device) -> torch.autocast:
    """The context that the forward passes of training run in."""
    return torch.autocast(device.type, dtype=torch.bfloat16)
