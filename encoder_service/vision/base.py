"""What a family must implement to be served."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from encoder_service.reduction.budget import Grid
from encoder_service.reduction.reduce import Scores


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Where the scans look. Layers are counted from 0, the window's side in tokens."""

    shallow_layer: int
    deep_layer: int
    window: int


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image as its model wants it, on the CPU."""

    pixels: torch.Tensor  # [tiles, channels, height, width], float32
    grids: tuple[Grid, ...]  # one for each tile


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the vision transformer made of tiles."""

    features: torch.Tensor  # [tiles, N, vision hidden], as the projector reads them
    scores: Scores


class VisionModel(ABC):
    """A loaded vision half: transformer, projector and preprocessing. The tensors belong to the device's thread."""

    family: str
    grid: Grid  # of a tile; the largest where tiles vary
    hidden_size: int  # of a visual token: the language model's
    dtype: torch.dtype
    device: torch.device
    scan: ScanSettings

    @abstractmethod
    def preprocess(self, image: Image.Image) -> PreparedImage:
        """Resizes, cuts and normalises an RGB image. Safe to call from several threads."""

    @abstractmethod
    def look(self, pixels: torch.Tensor) -> Seen:
        """Runs the transformer up to the feature layer, and no further.

        Args:
            pixels: [tiles, channels, height, width], on the model's device.
        """

    @abstractmethod
    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features to visual tokens, [tiles, N, vision hidden] → [tiles, N, hidden_size]."""

    @abstractmethod
    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight that the visual tokens depend on, by a name that does not change between checkpoint layouts."""

    @abstractmethod
    def configuration(self) -> Mapping[str, Any]:
        """Whatever else the visual tokens depend on, preprocessing included, in plain JSON values."""


@dataclass(frozen=True, slots=True)
class Family:
    """One file of this package: the `model_type` of config.json, and how to load its vision half.

    `load(checkpoint, dtype=…, device=…, shallow_layer=…, window=…)` raises CheckpointError when the half is missing or of a
    kind that is not served, and StartupError when the layer or the window does not fit; `None` means the family's default.
    """

    model_type: str
    load: Callable[..., VisionModel]
