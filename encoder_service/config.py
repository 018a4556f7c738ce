"""The encoder's settings, from `VSCAN_ENCODER_…` and the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from encoder_service.cache.settings import CacheWriteSettings
from encoder_service.images import ImageLimits
from encoder_service.media import MediaLimits
from encoder_service.videos import VideoLimits
from vscan.cache.settings import CacheSettings
from vscan.config import ServiceSettings
from vscan.model_settings import ModelSettings
from vscan.rpc.settings import Bind, RpcSettings
from vscan.specs import (
    DEFAULT_AVERAGE,
    MAX_FRAMES_PER_SECOND,
    Budget,
    FrameCount,
    FrameRate,
    FrameSampling,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    TargetAverage,
    TokensPerTile,
)
from vscan.telemetry.settings import TelemetrySettings

_MEBIBYTE = 2**20
_MESSAGE_OVERHEAD_BYTES = 4096  # of a request around its image, or around the frames of its video


class EncoderSettings(ModelSettings, CacheSettings, CacheWriteSettings, RpcSettings, TelemetrySettings, ServiceSettings):
    """Everything that can be set about an encoder."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_ENCODER_", validate_default=True)

    bind: Bind = "127.0.0.1:7071"

    shallow_layer: int | None = Field(
        default=None, ge=0, description="Layer, from 0, whose attention the local scan reads. Unset: the family's (5 of 24)."
    )
    window: int | None = Field(
        default=None,
        ge=1,
        description="Side of a local-scan window, in tokens. Unset: the family's (6, of Qwen2.5-VL 4). More than a tile's side "
        "is refused, but for Qwen2.5-VL, whose images vary in size: the window is then a whole image.",
    )
    skip_padding: bool = Field(
        default=True,
        description="Whether tokens of padding are neither kept nor merged, nor counted by budgets. `false`: as the paper's "
        "authors' release, which spends budget on them.",
    )
    reduction_method: ReductionMethod = Field(
        default=ReductionMethod.VSCAN, description="Method of requests that name none: `vscan`, `global`, `local`, …"
    )
    reduction_tokens_per_tile: int | None = Field(
        default=None,
        ge=1,
        description="Budget of requests that name none: tokens kept of each tile.",
    )
    reduction_ratio: float | None = Field(
        default=None, gt=0, le=1, description="Budget of requests that name none: fraction of each tile's tokens."
    )
    reduction_target_average: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Budget of requests that name none: fraction kept on average over the language model's layers; the encoder "
        "keeps 1.5 times as much. If no budget is set, this one is 1/9.",
    )
    reduction_local_share: float = Field(
        default=0.5, ge=0, le=1, description="Fraction of the budget that the local scan takes, for requests that name none."
    )
    reduction_merge: bool = Field(
        default=True, description="Whether dropped tokens are merged into kept ones, for requests that do not say."
    )

    video_frames: int | None = Field(
        default=None,
        ge=1,
        description="Frames looked at of a video whose request does not say which. Unset: the checkpoint's, "
        "or else the family's (Video-LLaVA 8).",
    )
    video_frames_per_second: float | None = Field(
        default=None,
        gt=0,
        le=MAX_FRAMES_PER_SECOND,
        description="Frames looked at of each second of a video whose request does not say which. Unset: the "
        "checkpoint's, or else the family's (Qwen2.5-VL 2).",
    )
    video_max_tokens: int = Field(
        default=24_576,
        ge=1,
        description="Most tokens of one video, before reduction. Qwen2.5-VL makes the frames of a long one smaller to keep to "
        "it; a video that cannot is refused.",
    )

    max_image_bytes: int = Field(default=20 * _MEBIBYTE, ge=1, description="Largest image file, in bytes.")
    max_image_pixels: int = Field(
        default=50_000_000, ge=1, description="Most pixels of an image, read from its header before it is decoded."
    )
    min_image_side_pixels: int = Field(default=8, ge=1, description="Least width and height of an image, in pixels.")
    max_aspect: float = Field(
        default=20.0, ge=1, allow_inf_nan=False, description="Largest ratio of an image's longer to its shorter side."
    )
    max_video_bytes: int = Field(
        default=50 * _MEBIBYTE, ge=1, description="Largest video file, or all frames of one video that is sent so, in bytes."
    )
    max_video_seconds: float = Field(
        default=600.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest video, in seconds. A file may have 240 frames for each of them.",
    )
    max_video_frames: int = Field(default=64, ge=1, description="Most frames of one video that are looked at, or sent.")
    max_video_frame_pixels: int = Field(
        default=9_000_000, ge=1, description="Most pixels of a frame; the limits on an image's sides are a frame's too."
    )
    max_video_decoded_pixels: int = Field(
        default=40_000_000_000,
        ge=1,
        description="Most pixels of all frames of a file that are decoded on the way to those looked at. Ten minutes of "
        "1920 x 1080 pixels at 30 frames a second have 37 thousand million.",
    )
    max_lookup_digests: int = Field(default=256, ge=1, description="Most digests in one Lookup.")
    max_queue: int = Field(
        default=64,
        ge=1,
        description="Images that may wait to be encoded, and as many videos. "
        "One more gets RESOURCE_EXHAUSTED with a retry delay.",
    )
    max_queue_bytes: int = Field(
        default=1024 * _MEBIBYTE,
        ge=1,
        description="Most bytes that the images which wait may hold, files and prepared pixels together, and as many the "
        "videos. One more gets RESOURCE_EXHAUSTED, and none is prepared meanwhile. A single one may have more.",
    )
    max_batch_tiles: int = Field(
        default=16, ge=1, description="Most tiles of one device pass. A tile of many tokens counts as one for each 576 of them."
    )
    batch_wait_ms: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long an image or video waits for company in a device pass while the device is idle. While it is busy "
        "they gather by themselves.",
    )
    image_workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that decode and resize images, one each. Unset: as many as there are cores, at most 4.",
    )
    video_workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that decode and resize videos, one each, so that images wait for no video. Unset: half as many as "
        "for images, at least 1.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self._budgets()) > 1:
            raise ValueError("reduction_tokens_per_tile, reduction_ratio and reduction_target_average exclude each other")
        for name in ("max_image_bytes", "max_video_bytes"):
            if getattr(self, name) + _MESSAGE_OVERHEAD_BYTES > self.max_message_bytes:
                raise ValueError(f"max_message_bytes must be larger than {name}")
        if self.video_frames is not None and self.video_frames_per_second is not None:
            raise ValueError("video_frames and video_frames_per_second exclude each other")
        if self.video_frames is not None and self.video_frames > self.max_video_frames:
            raise ValueError("video_frames must be at most max_video_frames")
        return self

    @property
    def media_limits(self) -> MediaLimits:
        """What images and videos are refused."""
        image = ImageLimits(
            max_bytes=self.max_image_bytes,
            max_pixels=self.max_image_pixels,
            min_side=self.min_image_side_pixels,
            max_aspect_ratio=self.max_aspect,
        )
        video = VideoLimits(
            max_bytes=self.max_video_bytes,
            max_seconds=self.max_video_seconds,
            max_frames=self.max_video_frames,
            max_decoded_pixels=self.max_video_decoded_pixels,
            frame=replace(image, max_pixels=self.max_video_frame_pixels),
        )
        return MediaLimits(image, video)

    @property
    def frame_sampling(self) -> FrameSampling | None:
        """Which frames of a video are looked at where a request does not say; None: as the family has it."""
        if self.video_frames is not None:
            return FrameCount(self.video_frames)
        return None if self.video_frames_per_second is None else FrameRate(self.video_frames_per_second)

    @property
    def reduction(self) -> ReductionSpec:
        """What an unset field of a request means; every field is set."""
        return ReductionSpec(
            method=self.reduction_method,
            budget=next(iter(self._budgets()), TargetAverage(DEFAULT_AVERAGE)),
            local_share=self.reduction_local_share,
            merge=self.reduction_merge,
            seed=0,
        )

    def _budgets(self) -> list[Budget]:
        tokens, ratio, average = self.reduction_tokens_per_tile, self.reduction_ratio, self.reduction_target_average
        return [
            *([] if tokens is None else [TokensPerTile(tokens)]),
            *([] if ratio is None else [Ratio(ratio)]),
            *([] if average is None else [TargetAverage(average)]),
        ]
