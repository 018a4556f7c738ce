"""What an encoder says of itself: constant for the life of the process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from encoder_service.fingerprint import fingerprint
from encoder_service.vision.base import ScanSettings, VisionModel
from vscan.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderIdentity:
    """Model, fingerprints and sizes."""

    model: str
    family: str
    fingerprint: bytes  # 32
    pair_fingerprint: bytes  # 32
    hidden_size: int
    dtype: torch.dtype
    tokens_per_tile: int
    scan: ScanSettings


def identify(checkpoint: Checkpoint, model: VisionModel, name: str, *, max_video_frames: int) -> EncoderIdentity:
    """The identity of a loaded model, to be called `name`. Reads every weight once."""
    return EncoderIdentity(
        model=name,
        family=model.family,
        fingerprint=fingerprint(model, max_video_frames=max_video_frames),
        pair_fingerprint=checkpoint.pair_fingerprint(),
        hidden_size=model.hidden_size,
        dtype=model.dtype,
        tokens_per_tile=model.grid.tokens,
        scan=model.scan,
    )
