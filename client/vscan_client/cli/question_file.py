"""The input of `ask-many`: one JSON object a line.

    {"id": 1, "image": "cat.png", "question": "What is it?"}
    {"id": "b", "images": ["a.png", "b.png"], "question": "Which is larger?", "max_new_tokens": 8, "meta": {"truth": "a"}}
    {"id": 3, "video": "clip.gif", "frames": 4, "question": "What happens?"}

`id`, `question` and files are needed: `image` or `images`, `video` or `videos`, or one of each pair; then the videos come after
the images. A file that plainly is a video may be an `image` too; a GIF is a video as a `video` only. The options are those of
`QuestionOptions`; `meta` is passed on to the answer. `answer`, a text or a list of texts that are all right, is for whoever
checks answers (`vscan tune`); it is not sent. Files are relative to the file of questions. `json_schema` is an object, or a
text that holds one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from vscan.errors import InvalidArgument
from vscan_client.cli.questions import QuestionOptions

Id: TypeAlias = str | int
_OPTIONS = {field.name for field in fields(QuestionOptions)}
_KNOWN = {"id", "image", "images", "video", "videos", "question", "answer", "meta"} | _OPTIONS
_TEXTS = {"reduction", "rater", "positions", "json_schema", "regex"}
_BUDGETS = {"budget", "keep"}
_INTEGERS = {"max_new_tokens", "top_k", "seed", "logprobs", "frames", "samples"}
_NUMBERS = {
    "local_share",
    "temperature",
    "top_p",
    "fps",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
}
_SWITCHES = {"merge", "ignore_eos", "report_kept"}


@dataclass(frozen=True, slots=True)
class QuestionLine:
    """One line, read. Nothing of it was checked against the files or the server yet."""

    id: Id
    images: tuple[str, ...]
    question: str
    options: QuestionOptions
    meta: Any = None
    videos: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()  # each of them right; empty where the line does not say


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no question. Its id is `line:<number>` where it names none."""

    id: Id
    error: InvalidArgument


def read_questions(path: Path) -> list[QuestionLine | BadLine]:
    """Every line of the file that is not blank, in order.

    Raises:
        InvalidArgument: the file cannot be read, or two lines have the same id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidArgument("questions", f"{path}: {reason}") from error
    questions = dict(_parse_all(lines))
    first: dict[Id, int] = {}
    for number, question in questions.items():
        if (other := first.setdefault(question.id, number)) != number:
            raise InvalidArgument("questions", f"{path}:{number}: the id {question.id!r} is there twice, in line {other} too")
    return list(questions.values())


def parse_question(line: str, also: Collection[str] = ()) -> QuestionLine:
    """One line; fields of `also` are passed over. Raises InvalidArgument, which names the field."""
    record = _object(line)
    return _question(_id(record), {name: value for name, value in record.items() if name not in also})


def _parse_all(lines: list[str]) -> Iterator[tuple[int, QuestionLine | BadLine]]:
    """With the numbers of the lines."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        identity: Id = f"line:{number}"
        try:
            record = _object(line)
            identity = _id(record)
            yield number, _question(identity, record)
        except InvalidArgument as error:
            yield number, BadLine(identity, error)


def _object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidArgument("line", "not JSON") from error
    if not isinstance(record, dict):
        raise InvalidArgument("line", "not a JSON object")
    return record


def _id(record: dict[str, Any]) -> Id:
    identity = record.get("id")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise InvalidArgument("id", "a string or a whole number is needed")
    return identity


def _question(identity: Id, record: dict[str, Any]) -> QuestionLine:
    for name in record:
        if name not in _KNOWN:
            raise InvalidArgument(name, "no such field; what only the answer's reader needs belongs in meta")
    question = record.get("question")
    if not isinstance(question, str) or not question:
        raise InvalidArgument("question", "a text is needed")
    options = QuestionOptions(
        **{name: option_value(name, record[name]) for name in _OPTIONS & record.keys() if record[name] is not None}
    )
    images, videos = _files(record, "image"), _files(record, "video")
    if not images and not videos:
        raise InvalidArgument("image", "image, images, video or videos is needed")
    return QuestionLine(identity, images, question, options, record.get("meta"), videos, read_answers(record.get("answer", [])))


def read_answers(value: Any) -> tuple[str, ...]:
    """What a line has as its `answer`: a text, or texts that are all right. Raises InvalidArgument."""
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise InvalidArgument("answer", "a text or a list of texts is needed")
    return tuple(answers)


def _files(record: dict[str, Any], kind: str) -> tuple[str, ...]:
    if kind in record and f"{kind}s" in record:
        raise InvalidArgument(kind, f"either {kind} or {kind}s")
    files = [record[kind]] if kind in record else record.get(f"{kind}s", [])
    named = isinstance(files, list) and all(isinstance(file, str) and file for file in files)
    if not named or (f"{kind}s" in record and not files):
        raise InvalidArgument(f"{kind}s", "a list of file names is needed")
    return tuple(files)


def option_value(name: str, value: Any) -> Any:
    """A JSON value as the field of `QuestionOptions` takes it. Raises InvalidArgument where it is of another kind."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _BUDGETS and (isinstance(value, str) or (number and isinstance(value, int))):
        return str(value)
    if name in _INTEGERS and number and isinstance(value, int) and 0 <= value < 2**64:
        return value
    if name == "priority" and number and isinstance(value, int):
        return value
    if name in _NUMBERS and number:
        return float(value)
    if name in _SWITCHES and isinstance(value, bool):
        return value
    if name == "stop" and (isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))):
        return (value,) if isinstance(value, str) else tuple(value)
    if name == "json_schema" and isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if name == "stop_token_ids" and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    raise InvalidArgument(name, f"{json.dumps(value)} is not a value for it")
