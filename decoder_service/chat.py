"""A question's text side as values: a chat, or a raw prompt. Every part knows its path in the request, for errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who speaks; the values are the names that chat templates know."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text of a turn. `field`: its path, for instance `messages[0].parts[1].text`."""

    field: str
    text: str


class MediaKind(StrEnum):
    """What is looked at; the values are the names that chat templates know."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class MediaPart:
    """The place of the next image, or of the next video, of the request."""

    field: str
    kind: MediaKind = MediaKind.IMAGE


Part = TextPart | MediaPart


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `field`: its path, for instance `messages[0]`."""

    field: str
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; its images are counted in the order in which their parts come, and so are its videos."""

    turns: tuple[Turn, ...]

    def texts(self) -> tuple[TextPart, ...]:
        """All text parts, in order."""
        return tuple(part for part in self._parts() if isinstance(part, TextPart))

    def media(self, kind: MediaKind) -> tuple[MediaPart, ...]:
        """All parts of that kind, in order."""
        return tuple(part for part in self._parts() if isinstance(part, MediaPart) and part.kind is kind)

    def _parts(self) -> Iterator[Part]:
        return (part for turn in self.turns for part in turn.parts)


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt in the model's own syntax, with placeholders for so many images and videos."""

    text: str
    images: int
    videos: int = 0

    def count(self, kind: MediaKind) -> int:
        """How many of that kind it has placeholders for."""
        return {MediaKind.IMAGE: self.images, MediaKind.VIDEO: self.videos}[kind]
