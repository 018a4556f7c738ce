"""Linear layers on a CPU, their weights kept in the order in which oneDNN reads them.

torch hands float32 products on a CPU to MKL, with the weights as they lie. With weights that are reordered once, oneDNN can be
faster at any number of rows (`docs/engine.md` has what was measured). Where that was tried, a row's result did not depend on
the rows beside it. A packed layer still says its weights under their names in `state_dict`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# What the order is made for. One made for few rows serves many as well; the reverse is not so.
_ROWS = 8
_SMALL_WEIGHTS = 2**18  # fewer than this
_TRIALS = 3
_TRIED_OUTPUTS = 1024  # at most: a trial takes little memory and time


class PackedLinear(nn.Module):
    """What `linear` computes, for inference: [..., in] → [..., out]. It packs the weight, and leaves `linear` without one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        linear.register_parameter("weight", None)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Applies the layer."""
        return _apply(rows, self._weight, self._bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """As the layer had them, bit for bit; the weight is unpacked into a copy."""
        destination[f"{prefix}weight"] = self._weight.to_dense()
        if self._bias is not None:
            destination[f"{prefix}bias"] = self._bias


def packed(module: nn.Module, worth: Callable[[nn.Linear], bool] = lambda linear: True) -> nn.Module:
    """`module` with a `PackedLinear` in the place of each float32 `nn.Linear` on a CPU; if it is such a layer, its packed form.

    It is changed one layer after the other, so that one weight at a time is there twice. Other layers stay as they are, and so
    do those that are not `worth` it, and all where this build of torch has no oneDNN.
    """
    if not _can_pack():
        return module
    if _is_packable(module):
        return PackedLinear(module) if worth(module) else module  # type: ignore[arg-type]
    for name in [name for name, _ in module.named_children()]:
        setattr(module, name, packed(getattr(module, name), worth))
    return module


def faster_packed(rows: int) -> Callable[[nn.Linear], bool]:
    """Which layers are faster packed where they see so many rows at a time, for `packed`: one of each shape is tried.

    Neither way always wins: MKL is slow on some processors, oneDNN with some numbers of rows. On an Intel Xeon (AVX-512), one
    thread, a layer of 1,024 to 4,096 took 44 ms as torch has it, packed 43 with 576 rows and 62 with 577, which are CLIP's.
    Small layers, of which times say little, are packed.
    """
    found: dict[torch.Size, bool] = {}

    def faster(linear: nn.Linear) -> bool:
        shape = linear.weight.shape
        if shape not in found:
            found[shape] = shape.numel() < _SMALL_WEIGHTS or _is_faster_packed(linear, rows)
        return found[shape]

    return faster


@torch.inference_mode()
def _is_faster_packed(linear: nn.Linear, rows: int) -> bool:
    given, weight = torch.zeros(rows, linear.in_features), linear.weight[:_TRIED_OUTPUTS]
    reordered = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    ways: list[Callable[[], Any]] = [lambda: functional.linear(given, weight), lambda: _apply(given, reordered, None)]
    times = [[_seconds(way) for way in ways] for _ in range(_TRIALS)]
    plain, of_packed = (min(some) for some in zip(*times, strict=True))
    return bool(of_packed < plain)


def _apply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    done: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return done


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _is_packable(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _can_pack() -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in names
    )
