"""Pictures as the encoder's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embedded_model.config import PIXEL_MEAN, PIXEL_STD
from embedded_model.scenes import Scene


def pixels_of(scenes: Sequence[Scene]) -> Tensor:
    """Normalised pixels [pictures, 3, 96, 96] float32, as the packaged image processor makes them."""
    raw = torch.from_numpy(np.stack([np.asarray(scene.image) for scene in scenes]))
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    return ((raw.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
