"""What a question is made of: images and text, in messages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike
from pathlib import Path

from vscan.errors import InvalidArgument

DIGEST_BYTES = 32


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
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise InvalidArgument("image", f"{path}: {error.strerror or 'cannot be read'}") from error

    @classmethod
    def from_digest(cls, sha256: bytes | str) -> Image:
        """An image that the server has seen, named by its SHA-256 (32 bytes, or 64 hexadecimal digits)."""
        try:
            digest = bytes.fromhex(sha256) if isinstance(sha256, str) else bytes(sha256)
        except ValueError as error:
            raise InvalidArgument("image.sha256", "not hexadecimal") from error
        if len(digest) != DIGEST_BYTES:
            raise InvalidArgument("image.sha256", f"{len(digest)} bytes", limit=f"{DIGEST_BYTES} bytes")
        return cls(digest)

    @property
    def digest(self) -> str:
        """`sha256` in hexadecimal."""
        return self.sha256.hex()


@dataclass(frozen=True, slots=True)
class Text:
    """Text. Whatever it says, the server never reads it as an image or a control token."""

    text: str


# Where an image is wanted a string is a path.
ImageLike = Image | bytes | str | PathLike[str]
# Within a message a string is text.
PartLike = Text | Image | str | bytes | PathLike[str]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Text | Image, ...]

    @classmethod
    def user(cls, *parts: PartLike) -> Message:
        """What the person says: strings are text; bytes and `Path`s are images."""
        return cls(Role.USER, tuple(as_part(part) for part in parts))

    @classmethod
    def assistant(cls, text: str) -> Message:
        """An earlier answer of the model."""
        return cls(Role.ASSISTANT, (Text(text),))

    @classmethod
    def system(cls, text: str) -> Message:
        """Instructions, as the first message only."""
        return cls(Role.SYSTEM, (Text(text),))


def as_image(source: ImageLike) -> Image:
    """The image that `source` means; reads a file where it is a path."""
    if isinstance(source, Image):
        return source
    if isinstance(source, bytes):
        return Image.from_bytes(source)
    return Image.from_path(source)


def as_images(sources: ImageLike | Sequence[ImageLike]) -> tuple[Image, ...]:
    """One image or several. A bad one is InvalidArgument naming its place."""
    if isinstance(sources, Image | bytes | str | PathLike):
        sources = [sources]
    images = []
    for index, source in enumerate(sources):
        try:
            images.append(as_image(source))
        except InvalidArgument as error:
            raise InvalidArgument(f"images[{index}]", error.problem, limit=error.limit) from error
    return tuple(images)


def as_part(source: PartLike) -> Text | Image:
    """The part that `source` means."""
    if isinstance(source, Text | Image):
        return source
    return Text(source) if isinstance(source, str) else as_image(source)
