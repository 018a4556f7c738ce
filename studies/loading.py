"""A checkpoint of any family that is served, in this process: each half is loaded when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

import embedded_model
from encoder_service.config import EncoderSettings
from studies.language_half import LanguageHalf
from studies.vision_half import VisionHalf
from vscan.checkpoint import Checkpoint
from vscan.config import load_settings
from vscan.device import choose_device, choose_dtype
from vscan.errors import InvalidArgument, StartupError
from vscan.specs import ReductionSpec


class Model:
    """A checkpoint's halves, computed as they are served.

    Args:
        checkpoint: read, but nothing loaded yet.
        name: what to call it.
        settings: the encoder's, for its limits and defaults.
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str, *, device: torch.device, dtype: torch.dtype, settings: EncoderSettings
    ) -> None:
        self.checkpoint = checkpoint
        self.name = name
        self.device = device
        self.dtype = dtype
        self._settings = settings

    @property
    def default_reduction(self) -> ReductionSpec:
        """What an encoder does where a request does not say; every field is set."""
        return self._settings.reduction

    @cached_property
    def vision(self) -> VisionHalf:
        """Raises CheckpointError, or StartupError where a setting of the scans does not fit."""
        return VisionHalf.load(self.checkpoint, self._settings, device=self.device, dtype=self.dtype)

    @cached_property
    def language(self) -> LanguageHalf:
        """Raises CheckpointError."""
        return LanguageHalf.load(self.checkpoint, device=self.device, dtype=self.dtype)


def open_model(directory: Path | None, *, device: str = "auto", dtype: str = "auto") -> Model:
    """Opens a checkpoint; None: the embedded model.

    The encoder's settings in the environment hold here as well: its limits, and where its scans look.

    Raises:
        InvalidArgument: no such folder or device.
        CheckpointError: not a checkpoint.
        StartupError: a setting of the encoder's that cannot be used.
    """
    if directory is not None and not directory.is_dir():
        raise InvalidArgument("--model", f"{directory} is not a folder")
    checkpoint = Checkpoint.open(directory or embedded_model.checkpoint_dir())
    try:
        where = choose_device(device)
    except StartupError as error:
        raise InvalidArgument("--device", f"{device} cannot be used here") from error
    name = "the embedded model" if directory is None else checkpoint.name
    return Model(checkpoint, name, device=where, dtype=choose_dtype(dtype, where), settings=load_settings(EncoderSettings))
