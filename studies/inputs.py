"""What a study looks at: images and videos, and questions about them. No torch here.

Either drawn scenes, which the embedded model was trained for, or a folder. A folder of images alone is enough for studies that
ask nothing. Questions are lines of JSON in its file `questions.jsonl`, in the form that `vscan ask-many` reads, with one more
field that a line may have, on its own or in `meta`: `family` (or `category`) of the question. `answer` may be in `meta` too.

    {"id": 1, "image": "cat.png", "question": "How many cats are there?", "answer": "2", "family": "count"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from vscan.errors import InvalidArgument
from vscan.specs import FrameSampling
from vscan_client._files import is_video_file, read_file
from vscan_client.cli.media_files import find_media
from vscan_client.cli.question_file import QuestionLine, parse_question, read_answers
from vscan_client.content import frame_sampling

if TYPE_CHECKING:
    from embedded_model.scenes import Scene

QUESTIONS_FILE = "questions.jsonl"
_OWN_FIELDS = ("family", "category")
# Keep these draws apart from those of other uses of the same seed. Those of scenes do not depend on what is asked.
_SCENE_STREAM = 7003
_QUESTION_STREAM = 7004


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image or a video."""

    name: str
    read: Callable[[], bytes]  # raises InvalidArgument
    is_video: bool = False
    sampling: FrameSampling | None = None  # of a video; None: as its model is used to
    scene: Scene | None = None  # what is known to be in it


@dataclass(frozen=True, slots=True)
class Question:
    """A question about images and videos."""

    id: str
    text: str
    pictures: tuple[int, ...]  # of `Inputs.pictures`, in the order in which they are shown
    answers: tuple[str, ...] = ()  # each of them right; empty: not known
    family: str = ""  # empty: not known


@dataclass(frozen=True, slots=True)
class Inputs:
    """What there is to look at, and to ask."""

    source: str  # what to call it
    pictures: tuple[Picture, ...]
    questions: tuple[Question, ...] = field(default=())


def read_inputs(folder: Path | None, *, count: int, seed: int, with_questions: bool) -> Inputs:
    """What a study looks at: `count` questions with their images, or `count` images and videos.

    Of a folder that has more, as many are drawn, by `seed`.

    Args:
        folder: None for scenes.

    Raises:
        InvalidArgument: a folder or a file that cannot be read, a bad line (by file and number), or nothing to look at.
    """
    if folder is None:
        return draw_scenes(count, seed)
    if not folder.is_dir():
        raise InvalidArgument("--data", f"{folder} is not a folder")
    listed = folder / QUESTIONS_FILE
    if not listed.is_file():
        if with_questions:
            raise InvalidArgument("--data", f"{folder} has no {QUESTIONS_FILE}, and this study asks questions")
        return _files_of(folder, count, seed)
    lines = list(_lines_of(listed))
    if not lines:
        raise InvalidArgument("--data", f"{listed}: no question")
    inputs = _joined(folder, _some(lines, count, seed) if with_questions else lines)
    if with_questions:
        return inputs
    return Inputs(inputs.source, tuple(_some(inputs.pictures, count, seed)))


def draw_scenes(count: int, seed: int) -> Inputs:
    """Held-out scenes with a question each; the families of questions take turns. Any integer is a seed."""
    from embedded_model.questions import FAMILIES, ask
    from embedded_model.scenes import draw_scene, seeded

    drawing, asking = seeded(seed, _SCENE_STREAM), seeded(seed, _QUESTION_STREAM)
    pictures, questions = [], []
    for number in range(count):
        scene = draw_scene(drawing)
        pictures.append(Picture(f"scene {number}", partial(_png, scene), scene=scene))
        asked = ask(FAMILIES[number % len(FAMILIES)], scene.layout, asking)
        questions.append(Question(str(number), asked.text, (number,), (asked.answer,), asked.family))
    return Inputs(f"scenes of seed {seed}", tuple(pictures), tuple(questions))


@dataclass(frozen=True, slots=True)
class _Line:
    place: str  # file:number
    line: QuestionLine
    sampling: FrameSampling | None
    answers: tuple[str, ...]
    family: str


def _lines_of(path: Path) -> Iterator[_Line]:
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidArgument("--data", f"{path}: {reason}") from error
    first: dict[Any, int] = {}
    for number, text in enumerate(texts, 1):
        if text.strip():
            place = f"{path}:{number}"
            try:
                one = _line_of(place, text)
            except InvalidArgument as error:
                raise InvalidArgument(place, str(error)) from error
            if first.setdefault(one.line.id, number) != number:
                raise InvalidArgument(place, f"the id {one.line.id!r} is that of line {first[one.line.id]}")
            yield one


def _line_of(place: str, text: str) -> _Line:
    line = parse_question(text, also=_OWN_FIELDS)
    meta = line.meta if isinstance(line.meta, dict) else {}
    stated: dict[str, Any] = meta | json.loads(text)
    for name in _OWN_FIELDS:
        if not isinstance(stated.get(name), str | None):
            raise InvalidArgument(name, f"{json.dumps(stated[name])} is not a text")
    sampling = frame_sampling(line.options.frames, line.options.fps)
    answers = line.answers or read_answers(meta.get("answer", []))
    return _Line(place, line, sampling, answers, stated.get("family") or stated.get("category") or "")


def _joined(folder: Path, lines: Sequence[_Line]) -> Inputs:
    """Each file once, though several questions are about it."""
    pictures: dict[tuple[str, bool, FrameSampling | None], int] = {}
    found: list[Picture] = []
    questions = []
    for one in lines:
        sampling = one.sampling
        files = [(name, False) for name in one.line.images] + [(name, True) for name in one.line.videos]
        for name, is_video in files:
            if (name, is_video, sampling) not in pictures:
                pictures[name, is_video, sampling] = len(found)
                found.append(_picture(folder / name, name, one.place, is_video, sampling))
        shown = tuple(pictures[name, is_video, sampling] for name, is_video in files)
        questions.append(Question(str(one.line.id), one.line.question, shown, one.answers, one.family))
    return Inputs(str(folder), tuple(found), tuple(questions))


def _files_of(folder: Path, count: int, seed: int) -> Inputs:
    found = find_media([str(folder)])
    if found.unreadable:
        path, reason = found.unreadable[0]
        raise InvalidArgument("--data", f"{path}: {reason}")
    if not found.files:
        raise InvalidArgument("--data", f"{folder} has no image and no video")
    files = [Path(file) for file in _some(found.files, count, seed)]
    names = [str(file.relative_to(folder)) for file in files]
    pictures = [_picture(file, name, "--data", False, None) for file, name in zip(files, names, strict=True)]
    return Inputs(str(folder), tuple(pictures))


def _picture(path: Path, name: str, place: str, is_video: bool, sampling: FrameSampling | None) -> Picture:
    """A file that plainly is a video is one, however it is called. Raises InvalidArgument at `place`."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InvalidArgument(place, f"{path}: {error.strerror}") from error
    return Picture(name, partial(read_file, path, name), is_video or is_video_file(head), sampling)


def _some(all_of_them: Sequence[Any], count: int, seed: int) -> list[Any]:
    """`count` of them, in their order."""
    chosen = Random(seed).sample(range(len(all_of_them)), min(count, len(all_of_them)))
    return [all_of_them[index] for index in sorted(chosen)]


def _png(scene: Scene) -> bytes:
    import io

    buffer = io.BytesIO()
    scene.image.save(buffer, "PNG")
    return buffer.getvalue()
