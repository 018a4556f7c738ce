"""What a question is made of: images, videos and text, in messages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from os import PathLike
from typing import TypeVar

from vscan.content_key import DIGEST_BYTES, frames_sha256
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, FrameRate, FrameSampling
from vscan_client._files import is_video_file, read_file

S = TypeVar("S")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Image:
    """An image file, or the name of one that the server has seen. Made by `from_bytes`, `from_path` or `from_digest`.

    Attributes:
        sha256: SHA-256 of the file, 32 bytes: its name.
        data: the file as it is, or `None` where only the name is known.
    """

    sha256: bytes
    data: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """An image file held in memory."""
        return cls(hashlib.sha256(data).digest(), data)

    @classmethod
    def from_path(cls, path: str | PathLike[str]) -> Image:
        """Reads an image file. Raises InvalidArgument if it cannot be read."""
        return cls.from_bytes(read_file(path, "image"))

    @classmethod
    def from_digest(cls, sha256: bytes | str) -> Image:
        """An image that the server has seen, named by its SHA-256 (32 bytes, or 64 hexadecimal digits)."""
        return cls(_digest(sha256, "image.sha256"))

    @property
    def digest(self) -> str:
        """`sha256` in hexadecimal."""
        return self.sha256.hex()

    @property
    def is_whole(self) -> bool:
        """Whether the file is here, not only its name."""
        return self.data is not None

    @property
    def bare(self) -> Image:
        """Its name alone."""
        return Image(self.sha256)


@dataclass(frozen=True, slots=True)
class Video:
    """A video file, frames of one, or the name of what the server has seen. Made by `from_path`, `from_bytes`, `from_frames` or
    `from_digest`.

        Video.from_path("clip.mp4", frames=8)
        Video.from_frames(["0.png", "1.png", "2.png"], frames_per_second=2)

    Attributes:
        sha256: its name, 32 bytes: SHA-256 of the file; of frames `vscan.content_key.frames_sha256`.
        data: the file as it is, or `None`.
        frames: or the files of its frames, which are all looked at; else empty.
        sampling: which frames of a file are looked at, or how many of the sent ones make up a second; `None`: the deployment's.
    """

    sha256: bytes
    data: bytes | None = field(default=None, repr=False)
    frames: tuple[bytes, ...] = field(default=(), repr=False)
    sampling: FrameSampling | None = None

    @classmethod
    def from_bytes(cls, data: bytes, *, frames: int | None = None, frames_per_second: float | None = None) -> Video:
        """A video file held in memory, a GIF too. So many frames are looked at, in all or for each second, not both."""
        return cls(hashlib.sha256(data).digest(), data, sampling=frame_sampling(frames, frames_per_second))

    @classmethod
    def from_path(
        cls, path: str | PathLike[str], *, frames: int | None = None, frames_per_second: float | None = None
    ) -> Video:
        """Reads a video file, a GIF too. Raises InvalidArgument if it cannot be read."""
        return cls.from_bytes(read_file(path, "video"), frames=frames, frames_per_second=frames_per_second)

    @classmethod
    def from_frames(cls, images: Sequence[ImageLike], *, frames_per_second: float | None = None) -> Video:
        """Frames in order, all of one size, of which so many make up a second. Raises InvalidArgument if there are none."""
        try:
            loaded = as_images(images)
        except InvalidArgument as error:
            raise error.below("video.frames") from error
        files = tuple(image.data for image in loaded if image.data is not None)
        if not files or len(files) != len(loaded):
            raise InvalidArgument("video.frames", "the images themselves are needed, at least one")
        return cls(frames_sha256(files), frames=files, sampling=frame_sampling(None, frames_per_second))

    @classmethod
    def from_digest(cls, sha256: bytes | str, *, frames: int | None = None, frames_per_second: float | None = None) -> Video:
        """A video that the server has seen, with the same sampling, named by 32 bytes or 64 hexadecimal digits."""
        return cls(_digest(sha256, "video.sha256"), sampling=frame_sampling(frames, frames_per_second))

    @property
    def digest(self) -> str:
        """`sha256` in hexadecimal."""
        return self.sha256.hex()

    @property
    def is_whole(self) -> bool:
        """Whether the file or the frames are here, not only their name."""
        return self.data is not None or bool(self.frames)

    @property
    def bare(self) -> Video:
        """Its name alone, and its sampling: the server keeps the tokens of sampled frames."""
        return replace(self, data=None, frames=())


@dataclass(frozen=True, slots=True)
class Text:
    """Text. Whatever it says, the server never reads it as an image or a control token."""

    text: str


# What the language model is shown.
Visual = Image | Video
# Where an image or a video is wanted a string is a path.
ImageLike = Image | bytes | str | PathLike[str]
VisualLike = Video | ImageLike
# Within a message a string is text.
PartLike = Text | VisualLike


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Text | Visual, ...]

    @classmethod
    def user(cls, *parts: PartLike) -> Message:
        """What the person says: strings are text; bytes and `Path`s are images, or videos where they plainly are."""
        return cls(Role.USER, tuple(as_part(part) for part in parts))

    @classmethod
    def assistant(cls, text: str) -> Message:
        """An earlier answer of the model."""
        return cls(Role.ASSISTANT, (Text(text),))

    @classmethod
    def system(cls, text: str) -> Message:
        """Instructions, as the first message only."""
        return cls(Role.SYSTEM, (Text(text),))


def frame_sampling(frames: int | None, frames_per_second: float | None) -> FrameSampling | None:
    """One of both, or neither: `None`, the deployment's. Raises InvalidArgument for both, and for one out of range."""
    if frames is not None and frames_per_second is not None:
        raise InvalidArgument("video.sampling", "either a number of frames or frames per second")
    try:
        if frames is not None:
            return FrameCount(frames)
        return None if frames_per_second is None else FrameRate(frames_per_second)
    except InvalidArgument as error:
        raise error.below("video.sampling") from error


def as_image(source: ImageLike) -> Image:
    """The image that `source` means; reads a file where it is a path."""
    if isinstance(source, Image):
        return source
    return Image.from_bytes(source) if isinstance(source, bytes) else Image.from_path(source)


def as_visual(source: VisualLike) -> Visual:
    """The image or the video that `source` means; reads a file where it is a path."""
    if isinstance(source, Image | Video):
        return source
    data = source if isinstance(source, bytes) else read_file(source, "file")
    return Video.from_bytes(data) if is_video_file(data) else Image.from_bytes(data)


def as_images(sources: ImageLike | Sequence[ImageLike]) -> tuple[Image, ...]:
    """One image or several. A bad one is InvalidArgument naming its place."""
    return _each(as_image, [sources] if isinstance(sources, Image | bytes | str | PathLike) else sources)


def as_visuals(sources: VisualLike | Sequence[VisualLike]) -> tuple[Visual, ...]:
    """One image or video, or several. A bad one is InvalidArgument naming its place."""
    return _each(as_visual, [sources] if isinstance(sources, Image | Video | bytes | str | PathLike) else sources)


def as_part(source: PartLike) -> Text | Visual:
    """The part that `source` means."""
    if isinstance(source, Text):
        return source
    return Text(source) if isinstance(source, str) else as_visual(source)


def _each(make: Callable[[S], V], sources: Sequence[S]) -> tuple[V, ...]:
    made = []
    for index, source in enumerate(sources):
        try:
            made.append(make(source))
        except InvalidArgument as error:
            raise InvalidArgument(f"images[{index}]", error.problem, limit=error.limit) from error
    return tuple(made)


def _digest(sha256: bytes | str, field: str) -> bytes:
    try:
        digest = bytes.fromhex(sha256) if isinstance(sha256, str) else bytes(sha256)
    except ValueError as error:
        raise InvalidArgument(field, "not hexadecimal") from error
    if len(digest) != DIGEST_BYTES:
        raise InvalidArgument(field, f"{len(digest)} bytes", limit=f"{DIGEST_BYTES} bytes")
    return digest
