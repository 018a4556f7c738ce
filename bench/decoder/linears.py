"""Linear layers of the model's shapes: as torch has them, and packed (a CPU in float32 only)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bench.decoder.setup import Setup
from bench.harness import Report
from bench.timing import alternate, timed
from vscan.packed_linear import packed

_LAYERS = 12  # more than a processor's cache holds, as in a model
_ROWS = (1, 8, 220, 540, 2940)


@torch.inference_mode()
def measure(setup: Setup, report: Report) -> None:
    """The widest of a block's layers, hidden to MLP."""
    if setup.language.device.type != "cpu" or setup.language.dtype != torch.float32:
        return

    def made() -> list[nn.Module]:
        return [nn.Linear(setup.shape.hidden, setup.shape.mlp, bias=False) for _ in range(_LAYERS)]

    layers = {"plain": made(), "packed": [packed(layer) for layer in made()]}

    def running(some: list[nn.Module], rows: torch.Tensor) -> Callable[[], float]:
        return lambda: timed(lambda: [layer(rows) for layer in some]) / _LAYERS

    for count in _ROWS:
        rows = torch.randn(count, setup.shape.hidden)
        sides = {name: running(some, rows) for name, some in layers.items()}
        alternate(3 * setup.rounds, sides, report, f"linear layer, {count} rows")
