"""The exam: held-out pictures, each with one question of every family."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from embedded_model.questions import FAMILIES, NO, Question, ask
from embedded_model.scenes import SIDE_PX, Split, draw_layout, draw_scene, seeded

_STREAM = 7002  # keeps the exam's draws apart from those of other uses of the same seed
_CHECKED_LAYOUTS = 20_000  # fresh scenes, drawn as training draws them, that every exam is compared with
QUESTIONS = 2_100


@dataclass(frozen=True, slots=True)
class ExamPicture:
    """One picture and its questions, one of each of FAMILIES in their order."""

    png: bytes
    half_png: bytes  # the same at half the resolution, scaled up again
    description: str
    questions: tuple[Question, ...]


def draw_exam(seed: int, questions: int) -> list[ExamPicture]:
    """Pictures enough for `questions`, rounded up to whole pictures.

    Raises:
        ValueError: a scene of the exam is one that training may draw.
    """
    rng = seeded(seed, _STREAM)
    pictures = []
    for _ in range(-(-questions // len(FAMILIES))):
        scene = draw_scene(rng, Split.HELD_OUT)
        asked = tuple(ask(family, scene.layout, rng) for family in FAMILIES)
        pictures.append(ExamPicture(_png(scene.image), _png(_halved(scene.image)), scene.layout.describe(), asked))
    _check_disjoint(seed, pictures)
    return pictures


def best_constant(pictures: Sequence[ExamPicture]) -> dict[str, float]:
    """For each family the share of its questions that its most frequent answer gets right."""
    answers = {family: Counter(picture.questions[i].answer for picture in pictures) for i, family in enumerate(FAMILIES)}
    return {family: max(counts.values()) / len(pictures) for family, counts in answers.items()}


def share_of_no(pictures: Sequence[ExamPicture]) -> float:
    """The share of questions, yes-or-no ones aside, about something that is not there: the answer is "no"."""
    answers = [question.answer for picture in pictures for question in picture.questions if question.family != "exist"]
    return answers.count(NO) / len(answers)


def _check_disjoint(seed: int, pictures: list[ExamPicture]) -> None:
    """By construction no description is in both sets; this would see most of the ways to break that."""
    rng = seeded(seed, _STREAM, 1)
    training = {draw_layout(rng, Split.TRAIN)[0].describe() for _ in range(_CHECKED_LAYOUTS)}
    shared = training & {picture.description for picture in pictures}
    if shared:
        raise ValueError(f"{len(shared)} scenes of the exam are training scenes")


def _halved(image: Image.Image) -> Image.Image:
    small = image.resize((SIDE_PX // 2, SIDE_PX // 2), Image.Resampling.BOX)
    return small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
