"""Finds the families: each file of this package that defines `FAMILY` is one."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import torch

from decoder_service import language
from decoder_service.language.base import Family, LanguageModel
from vscan.checkpoint import Checkpoint


def families() -> dict[str, Family]:
    """Every family, by the `model_type` of its config.json."""
    files = (import_module(f"{language.__name__}.{file.name}") for file in pkgutil.iter_modules(language.__path__))
    found: list[Family] = [file.FAMILY for file in files if hasattr(file, "FAMILY")]
    return {family.model_type: family for family in found}


def load_language(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str) -> LanguageModel:
    """Loads a checkpoint's language half.

    Raises:
        CheckpointError: the family is not served, or the half cannot be loaded.
    """
    known = families()
    checkpoint.check_family(known)
    return known[checkpoint.model_type].load(checkpoint, dtype=dtype, device=device)
