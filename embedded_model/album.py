"""A small album of held-out pictures with questions, for demonstrations and checks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from PIL import Image

from embedded_model.questions import FAMILIES, Question, ask
from embedded_model.scenes import Layout, Split, draw_scene, seeded

_STREAM = 7001  # keeps the album's draws apart from those of other uses of the same seed
_TRIES = 40


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture and the questions about it."""

    name: str
    image: Image.Image  # 96 x 96, RGB
    questions: tuple[Question, ...]

    def png(self) -> bytes:
        """The picture as a PNG file."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


def draw_album(seed: int, pictures: int = 8, questions: int = 4) -> list[Picture]:
    """`pictures` held-out scenes with `questions` each; the families take turns. Any integer is a seed."""
    rng = seeded(seed, _STREAM)
    turns = cycle(FAMILIES)
    album = []
    for number in range(1, pictures + 1):
        scene = draw_scene(rng, Split.HELD_OUT)
        asked: list[Question] = []
        for _ in range(questions):
            asked.append(_fresh(next(turns), scene.layout, asked, rng))
        album.append(Picture(f"scene-{seed}-{number}", scene.image, tuple(asked)))
    return album


def _fresh(family: str, layout: Layout, before: list[Question], rng: np.random.Generator) -> Question:
    """A question not asked before; after many tries, any."""
    question = ask(family, layout, rng)
    for _ in range(_TRIES):
        if question not in before:
            break
        question = ask(family, layout, rng)
    return question
