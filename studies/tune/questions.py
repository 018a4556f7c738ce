"""Questions with known answers: a user's, or about drawn scenes that the embedded model was not trained on.

A user's folder has `questions.jsonl`, in the form that `vscan ask-many` reads, each line with an `answer`: one text, or a list
of texts that are all right. An answer is right if it is one of them once case, blanks and a full stop at the end are put aside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import BadLine, QuestionLine, read_questions
from vscan_client.cli.questions import parse_files
from vscan_client.content import Image, Visual
from vscan_client.options import AskOptions

FILE = "questions.jsonl"
_SEED = 11  # of the embedded model's scenes
_TUNED = ("reduction", "budget", "local_share", "merge", "rater", "keep", "positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, ready to be asked."""

    visuals: tuple[Visual, ...]
    text: str
    answers: tuple[str, ...]  # each of them right
    options: AskOptions  # of sampling; what is tuned is not set

    @property
    def picture(self) -> str:
        """The same for questions about the same files, which succeed and fail together."""
        return " ".join(visual.digest for visual in self.visuals)

    def is_right(self, answer: str) -> bool:
        """Whether this answers it."""
        return normalised(answer) in map(normalised, self.answers)


def normalised(text: str) -> str:
    """Lower case, single blanks, no full stop at the end: "  Top  Left. " is "top left"."""
    return " ".join(text.split()).rstrip(".").rstrip().casefold()


def read_folder(folder: Path, most: int) -> list[Question]:
    """At most so many of a folder's questions, spread evenly over the file.

    Raises:
        InvalidArgument: the file, a line of it or a file that one names cannot be used; the text says which.
    """
    path = folder / FILE
    lines = read_questions(path)
    if not lines:
        raise InvalidArgument("--data", f"{path} has no questions")
    return [_question(path, line) for line in _spread(lines, most)]


def draw_questions(most: int) -> list[Question]:
    """At least so many questions about drawn scenes, one of each family about each. Needs the extra `serve`."""
    from embedded_model.album import draw_album
    from embedded_model.questions import FAMILIES

    questions = []
    for picture in draw_album(_SEED, pictures=-(-most // len(FAMILIES)), questions=len(FAMILIES)):
        image = Image.from_bytes(picture.png())
        questions += [Question(visuals=(image,), text=q.text, answers=(q.answer,), options={}) for q in picture.questions]
    return questions


def digest_of(questions: Sequence[Question]) -> str:
    """One name for questions, their files and their right answers, in hexadecimal."""
    told = [[question.picture, question.text, question.answers, repr(question.options)] for question in questions]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _spread(lines: Sequence[QuestionLine | BadLine], most: int) -> list[QuestionLine | BadLine]:
    """8 lines, at most 3: lines 0, 2 and 5."""
    count = min(most, len(lines))
    return [lines[number * len(lines) // count] for number in range(count)]


def _question(path: Path, line: QuestionLine | BadLine) -> Question:
    try:
        return _ready(path.parent, line)
    except InvalidArgument as error:
        raise InvalidArgument("--data", f"{path}: question {line.id!r}: {error}") from error


def _ready(folder: Path, line: QuestionLine | BadLine) -> Question:
    if isinstance(line, BadLine):
        raise line.error
    if not line.answers:
        raise InvalidArgument("answer", "a text or a list of texts is needed to tell whether the model is right")
    for name in _TUNED:
        if getattr(line.options, name) is not None:
            raise InvalidArgument(name, "a question cannot set what is tuned")
    options = line.options.ask_options()
    visuals = parse_files(line.images, line.videos, line.options.frame_sampling(), folder)
    return Question(
        visuals=tuple(visuals), text=line.question, answers=line.answers, options=AskOptions(sampling=options["sampling"])
    )
