"""The parity checkpoint's vision half, loaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from encoder_service.vision.base import PreparedImage, VisionModel
from encoder_service.vision.registry import load_vision
from tests.support.encoder import LLAVA15
from vscan.checkpoint import Checkpoint

CPU = torch.device("cpu")


def load(
    directory: Path = LLAVA15,
    *,
    shallow_layer: int | None = 5,
    window: int | None = 6,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> VisionModel:
    """A vision half of its own."""
    checkpoint = Checkpoint.open(directory)
    return load_vision(checkpoint, dtype=dtype, device=CPU, shallow_layer=shallow_layer, window=window, **settings)


@lru_cache(maxsize=1)
def shared_model() -> VisionModel:
    """One for all tests that only look. With the settings of the parity cases."""
    torch.set_num_threads(1)
    return load()


def pixels(model: VisionModel, tiles: int, seed: int = 0) -> torch.Tensor:
    """Noise in the model's shape, [tiles, 3, height, width]."""
    side = 14 * model.grid.rows
    return torch.randn(tiles, 3, side, side, generator=torch.Generator().manual_seed(seed))


def prepared(model: VisionModel, tiles: torch.Tensor) -> PreparedImage:
    """An image of these tiles, each of the model's own grid."""
    return PreparedImage(tiles, (model.grid,) * len(tiles))
