"""The vision half of a checkpoint in this process: files in; tiles, attention and visual tokens out, as the encoder does it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from threading import Event
from typing import Self

import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from PIL import Image

from encoder_service.config import EncoderSettings
from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.media import ImageFile, MediaLimits, VideoFile
from encoder_service.reduction.budget import Grid, plan_tiles
from encoder_service.reduction.controls import tile_seed
from encoder_service.vision.base import Attending, PreparedImage, VisionModel
from encoder_service.vision.registry import load_vision
from studies.finite import check_finite
from studies.inputs import Picture
from vscan.checkpoint import Checkpoint
from vscan.errors import InvalidArgument
from vscan.specs import ReductionMethod, ReductionSpec
from vscan.visual_tokens import VisualTokens

EVERYTHING = ReductionSpec(method=ReductionMethod.NONE)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image or video as the transformer is given it."""

    prepared: PreparedImage
    sha256: bytes
    model: VisionModel
    patches: list[Grid]  # of each tile
    valid: list[torch.Tensor | None]  # of each tile which tokens the scans rate, [N], bool; None: all, there is no padding

    @property
    def tiles(self) -> list[Image.Image]:
        """What each tile shows; made anew each time."""
        return self.model.pictures(self.prepared)

    def rated_patches(self, tile: int) -> torch.Tensor:
        """Which patches of a tile belong to tokens that the scans rate, [patches], bool."""
        patches, valid = self.patches[tile], self.valid[tile]
        if valid is None:
            return torch.ones(patches.tokens, dtype=torch.bool)
        side = math.isqrt(patches.tokens // len(valid))
        tokens = valid.view(patches.rows // side, patches.columns // side)
        return tokens.repeat_interleave(side, dim=0).repeat_interleave(side, dim=1).flatten()


class VisionHalf:
    """Looks at images and videos.

    Args:
        model: a loaded vision half.
        limits: what is refused.
    """

    def __init__(self, model: VisionModel, limits: MediaLimits) -> None:
        self.model = model
        self._limits = limits
        self._pass = DevicePass(model)

    @classmethod
    def load(cls, checkpoint: Checkpoint, settings: EncoderSettings, *, device: torch.device, dtype: torch.dtype) -> Self:
        """Loads it. Raises CheckpointError, or StartupError where a setting of the scans does not fit."""
        model = load_vision(
            checkpoint,
            dtype=dtype,
            device=device,
            shallow_layer=settings.shallow_layer,
            window=settings.window,
            skip_padding=settings.skip_padding,
            video_max_tokens=settings.video_max_tokens,
        )
        return cls(model, settings.media_limits)

    def see(self, picture: Picture) -> Seen:
        """Decodes and resizes, as the encoder does. Raises InvalidArgument, which names the file."""
        data = picture.read()
        try:
            prepared = self._media(picture, data).prepare(self.model, self._limits, Event())
        except InvalidArgument as error:
            raise InvalidArgument(picture.name, str(error)) from error
        side = self.model.patches_per_side
        patches = [Grid(side * grid.rows, side * grid.columns) for grid in prepared.looked_at]
        valid = self._valid(prepared) or [None] * len(prepared.grids)
        rated = list(compress(valid, prepared.counted or repeat(True)))
        return Seen(prepared, hashlib.sha256(data).digest(), self.model, patches, rated)

    def observe(self, seen: Seen, show: Callable[[Attending], None]) -> None:
        """Runs the layers that are served, and shows how each attends; see `VisionModel.observe`.

        Raises:
            InvalidArgument: the model's numbers overflow.
        """

        def show_finite(attending: Attending) -> None:
            for rows in (attending.query, attending.key):
                check_finite(rows, f"the attention of layer {attending.layer} of the vision transformer", rows.dtype)
            show(attending)

        self.model.observe(seen.prepared, show_finite)

    def encode(self, seen: Seen, reduction: ReductionSpec = EVERYTHING) -> VisualTokens:
        """The visual tokens that the encoder would give for it, reduced by a filled spec. Raises InvalidArgument."""
        image, scan = seen.prepared, self.model.scan
        valid = self._valid(image)
        plans = plan_tiles(reduction, image.grids, scan.window, scan.share, counted=image.counted, valid=valid)
        seeds = tuple(tile_seed(reduction.seed or 0, seen.sha256, tile) for tile in range(len(plans)))
        (done,) = self._pass([TileJob(image, plans, seeds, INVALID_SPAN_CONTEXT)])
        return done.value

    def _valid(self, image: PreparedImage) -> Sequence[torch.Tensor | None] | None:
        return image.valid if self.model.scan.skip_padding else None

    def _media(self, picture: Picture, data: bytes) -> ImageFile | VideoFile:
        if not picture.is_video:
            return ImageFile(data)
        sampling = picture.sampling or self.model.frame_sampling
        if sampling is None:
            raise InvalidArgument("video", f"{self.model.family} takes no videos")
        return VideoFile(data, sampling)
