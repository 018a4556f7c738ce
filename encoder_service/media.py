"""What is encoded: an image file, a video file, or frames of a video. Each knows its name, and how a model comes to see it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from threading import Event
from typing import ClassVar

from opentelemetry.trace import get_current_span
from PIL import Image

from encoder_service.images import ImageLimits, check_bytes, decode_image, over_bytes
from encoder_service.videos import VideoLimits, check_awaited, sample_video
from encoder_service.vision.base import PreparedImage, VisionModel
from vscan.content_key import frames_sha256
from vscan.errors import InvalidArgument
from vscan.specs import FrameSampling, sent_frame_rate
from vscan.telemetry import names
from vscan.visual_tokens import SampledFrames

_FRAMES = "video.frames.images"
_RATE = "video.sampling.frames_per_second"


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What is refused."""

    image: ImageLimits
    video: VideoLimits


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image."""

    is_video: ClassVar[bool] = False
    data: bytes
    sampling: FrameSampling | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    def sha256(self) -> bytes:
        """Its name, 32 bytes."""
        return hashlib.sha256(self.data).digest()

    def check(self, limits: MediaLimits) -> None:
        """Refuses what needs no decoding to be refused. Raises InvalidArgument."""
        check_bytes(self.data, limits.image.max_bytes)

    def prepare(self, model: VisionModel, limits: MediaLimits, stop: Event) -> PreparedImage:
        """Decodes and resizes. Raises InvalidArgument."""
        return model.preprocess(_noted(decode_image(self.data, limits.image)))


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video, and which frames of it are looked at."""

    is_video: ClassVar[bool] = True
    data: bytes
    sampling: FrameSampling

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    def sha256(self) -> bytes:
        """Its name, 32 bytes."""
        return hashlib.sha256(self.data).digest()

    def check(self, limits: MediaLimits) -> None:
        """Refuses what needs no decoding to be refused. Raises InvalidArgument."""
        check_bytes(self.data, limits.video.max_bytes, "video")

    def prepare(self, model: VisionModel, limits: MediaLimits, stop: Event) -> PreparedImage:
        """Decodes and resizes the frames. Raises InvalidArgument, and Cancelled once `stop` is set."""

        def how_many(duration_seconds: Fraction, available: int) -> int:
            return model.frames_of(duration_seconds, available, self.sampling, limits.video.max_frames)

        pictures, sampled = sample_video(self.data, limits.video, how_many, stop)
        return _prepared(model, pictures, sampled)


@dataclass(frozen=True, slots=True)
class SentFrames:
    """Frames of a video, image files of one size, all looked at; `sampling` says at which rate they were taken."""

    is_video: ClassVar[bool] = True
    images: tuple[bytes, ...]
    sampling: FrameSampling

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.images))

    def sha256(self) -> bytes:
        """Their name, 32 bytes."""
        return frames_sha256(self.images)

    def check(self, limits: MediaLimits) -> None:
        """Refuses what needs no decoding to be refused. Raises InvalidArgument."""
        most = limits.video.max_frames
        if not 1 <= len(self.images) <= most:
            raise InvalidArgument(_FRAMES, f"{len(self.images)} frames", limit=f"1 to {most}")
        if self.size_bytes > limits.video.max_bytes:
            raise over_bytes(_FRAMES, self.size_bytes, limits.video.max_bytes)
        rate, seconds = sent_frame_rate(self.sampling), limits.video.max_seconds
        if len(self.images) > rate * seconds:
            problem = f"{len(self.images)} frames at {rate:g} a second"
            raise InvalidArgument(_RATE, problem, limit=f"{seconds:g} seconds of video")

    def prepare(self, model: VisionModel, limits: MediaLimits, stop: Event) -> PreparedImage:
        """Decodes and resizes the frames. Raises InvalidArgument, and Cancelled once `stop` is set."""
        rate = Fraction(sent_frame_rate(self.sampling))
        seconds = tuple(float(index / rate) for index in range(len(self.images)))
        return _prepared(model, self._pictures(limits, stop), SampledFrames(seconds, float(len(self.images) / rate)))

    def _pictures(self, limits: MediaLimits, stop: Event) -> Iterator[Image.Image]:
        size: tuple[int, int] | None = None
        for index, data in enumerate(self.images):
            check_awaited(stop)
            field = f"{_FRAMES}[{index}]"
            try:
                picture = decode_image(data, limits.video.frame)
            except InvalidArgument as error:
                raise InvalidArgument(field, error.problem, limit=error.limit) from error
            size = size or picture.size
            if picture.size != size:
                problem, limit = (f"{width} x {height}" for width, height in (picture.size, size))
                raise InvalidArgument(field, f"{problem} pixels", limit=f"{limit}, as the first")
            yield picture


Media = ImageFile | VideoFile | SentFrames


def _prepared(model: VisionModel, pictures: Iterable[Image.Image], sampled: SampledFrames) -> PreparedImage:
    get_current_span().set_attribute(names.ATTR_VIDEO_FRAMES, len(sampled.seconds))
    return model.preprocess_video(map(_noted, pictures), sampled)


def _noted(picture: Image.Image) -> Image.Image:
    """The picture; its size goes into the current span."""
    get_current_span().set_attributes({names.ATTR_IMAGE_WIDTH: picture.width, names.ATTR_IMAGE_HEIGHT: picture.height})
    return picture
