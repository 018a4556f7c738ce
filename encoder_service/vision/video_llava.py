"""Video-LLaVA: an image is one tile, and so is each frame of a video, seen by two towers of one make.

Of a frame the language model receives the [CLS] token too, as a tile of its own that is kept whole; of an image it does not.

    image       patches
    video       [CLS] | patches | [CLS] | patches | ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from encoder_service.reduction.budget import Grid
from encoder_service.reduction.reduce import ReducedTiles, Scores
from encoder_service.vision.areas import Canvas
from encoder_service.vision.base import Family, PreparedImage, Seen, in_order
from encoder_service.vision.clip import ClipParts, ClipVision, check_preprocessing, load_clip_parts, load_tower
from encoder_service.vision.frame_processor import load_frame_processor, stated_sampling
from vscan.checkpoint import Checkpoint
from vscan.specs import FrameCount, FrameSampling
from vscan.visual_tokens import Area, PickedBy, SampledFrames, VisualTokens

# The family's own image processor does the same; what it returns is named otherwise in every other release.
_PROCESSORS: dict[str, Any] = {"VideoLlavaImageProcessor": CLIPImageProcessorPil, "CLIPImageProcessor": CLIPImageProcessorPil}
_CLASS_TOKEN = Grid(1, 1)


class VideoLlavaVision(ClipVision):
    """The vision half of Video-LLaVA."""

    family = "video_llava"
    frame_sampling: FrameSampling = FrameCount(8)

    def __init__(self, parts: ClipParts, *, video_tower: Any, frame_processor: Any, video_max_tokens: int | None) -> None:
        super().__init__(parts)
        self.video_max_tokens = video_max_tokens
        self._video_tower = video_tower
        self._frame_processor = frame_processor
        self.frame_sampling = stated_sampling(frame_processor) or self.frame_sampling

    def preprocess(self, image: Image.Image) -> PreparedImage:
        """The checkpoint's own image processor, on the CPU."""
        area = self._area(self._processor, Canvas.of(*image.size))
        return PreparedImage(_pixels(self._processor, image), (self.grid,), areas=(area,))

    def preprocess_video(self, frames: Iterable[Image.Image], sampled: SampledFrames) -> PreparedImage:
        """Each frame by itself, as the checkpoint's video processor does it."""
        count = len(sampled.seconds)
        self.check_video_tokens(count * (_CLASS_TOKEN.tokens + self.grid.tokens), count)
        made, areas = zip(*(self._frame(frame) for frame in frames), strict=True)
        grids, counted = (_CLASS_TOKEN, self.grid) * len(made), (False, True) * len(made)
        return PreparedImage(torch.cat(made), grids, counted=counted, frames=sampled, areas=tuple(chain(*areas)))

    def look(self, images: Sequence[PreparedImage], max_tiles: int | None = None) -> Seen:
        """Images through their tower, videos through theirs; neighbours of a kind together."""
        seen = []
        for videos, neighbours in groupby(images, key=lambda image: image.frames is not None):
            look = self._look_at_videos if videos else super().look
            seen.append(look(list(neighbours), max_tiles))
        return Seen.joined(seen)

    def assemble(self, image: PreparedImage, tiles: Sequence[ReducedTiles]) -> VisualTokens:
        """In order; the [CLS] tokens of frames are marked."""
        marked = [tile if grid != _CLASS_TOKEN else _as_class(tile) for grid, tile in zip(image.grids, tiles, strict=True)]
        return in_order(image.grids, marked, image.frames, image.areas)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """And the other tower."""
        return {**super().modules(), "video_tower": self._video_tower}

    def configuration(self) -> Mapping[str, Any]:
        """And what becomes of frames."""
        return {**super().configuration(), "video_preprocessing": self._frame_processor.to_dict()}

    def _tower_of(self, image: PreparedImage) -> Any:
        return self._tower if image.frames is None else self._video_tower

    @property
    def _towers(self) -> Sequence[Any]:
        return [self._tower, self._video_tower]

    def _frame(self, frame: Image.Image) -> tuple[torch.Tensor, tuple[None, Area | None]]:
        """A frame's pixels, and where its two tiles lie on it."""
        return _pixels(self._frame_processor, frame), (None, self._area(self._frame_processor, Canvas.of(*frame.size)))

    def _look_at_videos(self, videos: Sequence[PreparedImage], max_tiles: int | None) -> Seen:
        hidden, scores = self._see(self._video_tower, videos, max_tiles)
        shallow, deep = (pad(rows, (1, 0)).flatten() for rows in (scores.shallow, scores.deep))  # [CLS] is never compared
        return Seen(hidden.flatten(0, 1), Scores(shallow, deep))


def load(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, video_max_tokens: int | None, **settings: Any
) -> VideoLlavaVision:
    """Loads the half; see `load_clip_parts` for settings and errors."""
    parts = load_clip_parts(checkpoint, processors=_PROCESSORS, tower="image_tower", dtype=dtype, device=device, **settings)
    model = VideoLlavaVision(
        parts,
        video_tower=load_tower(checkpoint, "video_tower", parts.scan, dtype=dtype, device=device),
        frame_processor=load_frame_processor(checkpoint, "VideoLlavaVideoProcessor", CLIPImageProcessorPil),
        video_max_tokens=video_max_tokens,
    )
    check_preprocessing(checkpoint, model)
    return model


def _pixels(processor: Any, image: Image.Image) -> torch.Tensor:
    """[1, 3, height, width]."""
    pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    return pixels


def _as_class(tile: ReducedTiles) -> ReducedTiles:
    return replace(tile, picked_by=torch.full_like(tile.picked_by, int(PickedBy.CLASS)))


FAMILY = Family(model_type="video_llava", load=load)
