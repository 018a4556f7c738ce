"""What an encoder is, in 256 bits: two with one fingerprint make the same visual tokens of the same image or video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any

import torch

from encoder_service.vision.base import VisionModel
from vscan.content_key import framed_sha256
from vscan.tensors import DTYPE_NAMES

# Raise it when the code makes other tokens of the same image: decoding, scans, merging, the random control.
CODE_REVISION = 2
# Who wrote a configuration does not change what it says.
_NOT_CONFIGURATION = {"transformers_version", "processor_class", "_processor_class"}


def fingerprint(model: VisionModel, *, max_video_frames: int | None = None, rounded_to: str | None = None) -> bytes:
    """SHA-256 over weights, configuration, scan settings, dtype and code revision, 32 bytes. One tensor is copied at a time.

    `max_video_frames` bounds what a rate of frames gives, so it is one of a family that takes videos. `rounded_to` is the type
    that tokens are rounded to before anybody sees them, if they are.
    """
    rounding = () if rounded_to is None else (b"rounded to", rounded_to.encode())
    return framed_sha256(chain(_fields(model, max_video_frames), rounding))


def _fields(model: VisionModel, max_video_frames: int | None) -> Iterator[bytes]:
    yield b"vscan encoder"
    yield str(CODE_REVISION).encode()
    yield model.family.encode()
    yield DTYPE_NAMES[model.dtype].encode()
    yield json.dumps(asdict(model.scan), sort_keys=True).encode()
    yield json.dumps(_identity(model.configuration()), sort_keys=True).encode()
    if model.frame_sampling is not None:
        yield f"{max_video_frames} frames".encode()
    for name, tensor in sorted(model.named_tensors(), key=lambda entry: entry[0]):
        yield name.encode()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _identity(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _identity(entry) for key, entry in value.items() if key not in _NOT_CONFIGURATION}
    return value
