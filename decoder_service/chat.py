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


@dataclass(frozen=True, slots=True)
class ImagePart:
    """The place of the next image of the request."""

    field: str


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `field`: its path, for instance `messages[0]`."""

    field: str
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; its images are counted in the order in which their parts come."""

    turns: tuple[Turn, ...]

    def texts(self) -> tuple[TextPart, ...]:
        """All text parts, in order."""
        return tuple(part for part in self._parts() if isinstance(part, TextPart))

    def images(self) -> tuple[ImagePart, ...]:
        """All image parts, in order."""
        return tuple(part for part in self._parts() if isinstance(part, ImagePart))

    def _parts(self) -> Iterator[Part]:
        return (part for turn in self.turns for part in turn.parts)


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt in the model's own syntax, with placeholders for `images` images."""

    text: str
    images: int
