"""What is asked: always the same few questions about the same few pictures, so that every answer is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedded_model.album import draw_album

_SEED, _PICTURES, _QUESTIONS = 11, 6, 3


@dataclass(frozen=True, slots=True)
class Asking:
    """A question about a picture."""

    png: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, as far as it must not differ."""

    text: str
    token_ids: tuple[int, ...]


Undisturbed = Mapping[Asking, Said]


def questions() -> list[Asking]:
    """All of them, pictures taking turns."""
    album = draw_album(_SEED, pictures=_PICTURES, questions=_QUESTIONS)
    return [Asking(picture.png(), picture.questions[turn].text) for turn in range(_QUESTIONS) for picture in album]
