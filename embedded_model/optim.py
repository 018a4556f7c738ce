"""Muon for the hidden matrices, AdamW for the rest, and a cosine with warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Group = dict[str, Any]  # a parameter group of torch
MUON_RATE = 5e-3
ADAMW_RATE = 2e-3
WEIGHT_DECAY = 0.02
WARM_UP = 0.04  # share of the steps
FLOOR = 0.02  # last rate over the highest
NOT_HIDDEN = ("embed", "lm_head", "heads", "oracle")


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between hidden states, which Muon is for."""
    return parameter.ndim == 2 and not any(word in name for word in NOT_HIDDEN)


def build_optimizers(parts: Sequence[tuple[nn.Module, float]]) -> list[Optimizer]:
    """Muon and AdamW over (module, rate factor) pairs; every parameter of the modules once."""
    muon: list[Group] = []
    adamw: list[Group] = []
    for module, factor in parts:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        hidden = [p for n, p in named if is_hidden(n, p)]
        other = [p for n, p in named if not is_hidden(n, p)]
        if hidden:
            muon.append({"params": hidden, "lr": MUON_RATE * factor})
        if other:
            adamw.append({"params": other, "lr": ADAMW_RATE * factor})
    optimizers: list[Optimizer] = [torch.optim.AdamW(adamw, betas=(0.9, 0.98), weight_decay=0.0)]
    if muon:
        optimizers.append(torch.optim.Muon(muon, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"))
    for group in groups(optimizers):
        group["peak"] = group["lr"]
    return optimizers


def groups(optimizers: Iterable[Optimizer]) -> list[Group]:
    """The parameter groups of all optimizers."""
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def rate_factor(step: int, steps: int) -> float:
    """The share of the highest rate at `step`, 0-based: up in a line, down in a cosine."""
    warm = max(1, round(steps * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def set_rates(optimizers: Sequence[Optimizer], step: int, steps: int) -> None:
    """Sets every group's rate for `step`."""
    for group in groups(optimizers):
        group["lr"] = group["peak"] * rate_factor(step, steps)
