"""Finds the families: each file of this package that defines `FAMILY` is one."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import torch

from encoder_service import vision
from encoder_service.vision.base import Family, VisionModel
from vscan.checkpoint import Checkpoint


def families() -> dict[str, Family]:
    """Every family, by the `model_type` of its config.json."""
    files = (import_module(f"{vision.__name__}.{file.name}") for file in pkgutil.iter_modules(vision.__path__))
    found: list[Family] = [file.FAMILY for file in files if hasattr(file, "FAMILY")]
    return {family.model_type: family for family in found}


def load_vision(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    shallow_layer: int | None = None,
    window: int | None = None,
    skip_padding: bool = True,
    video_max_tokens: int | None = None,
) -> VisionModel:
    """Loads a checkpoint's vision half.

    Raises:
        CheckpointError: the family is not served, or the half cannot be loaded.
        StartupError: the layer or the window does not fit the model.
    """
    known = families()
    checkpoint.check_family(known)
    return known[checkpoint.model_type].load(
        checkpoint,
        dtype=dtype,
        device=device,
        shallow_layer=shallow_layer,
        window=window,
        skip_padding=skip_padding,
        video_max_tokens=video_max_tokens,
    )
