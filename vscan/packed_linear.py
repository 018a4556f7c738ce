"""Linear layers on a CPU, their weights kept in the order in which oneDNN reads them.

torch hands float32 products on a CPU to MKL, with the weights as they lie. With weights that are reordered once, oneDNN can be
faster at any number of rows (`docs/engine.md` has what was measured). Where that was tried, a row's result did not depend on
the rows beside it.
"""

from __future__ import annotations

import torch
from torch import nn

# What the order is made for. One made for few rows serves many as well; the reverse is not so.
_ROWS = 8


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
        done: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return done


def packed(module: nn.Module) -> nn.Module:
    """`module` with a `PackedLinear` in the place of each float32 `nn.Linear` on a CPU; if it is such a layer, its packed form.

    It is changed one layer after the other, so that one weight at a time is there twice. Other layers stay as they are, and so
    do all where this build of torch has no oneDNN.
    """
    if not _can_pack():
        return module
    if _is_packable(module):
        return PackedLinear(module)  # type: ignore[arg-type]
    for name in [name for name, _ in module.named_children()]:
        setattr(module, name, packed(getattr(module, name)))
    return module


def _is_packable(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _can_pack() -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in names
    )
