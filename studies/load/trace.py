"""Requests that were recorded, or written by hand: when each came, about which images, with which text.

A trace is a file of JSON lines, or a CSV file with a head. Fields of a line, or columns:

| field | meaning |
|---|---|
| `at_s` | when, in seconds from the beginning; never earlier than the line before |
| `images` or `image` | a path, relative to the trace; or an id, a whole number from 0, of an image that is made. JSON: one,
or a list; CSV: `;` between several. Empty: a question without an image |
| `question` | the text; or instead |
| `question_tokens` | a text of about so many tokens is made |
| `answer_tokens` | the answer has exactly so many. Left out: what the command's option says |
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from studies.load.workload import MOST_REQUESTS, Ask, question, style_draws
from vscan.errors import InvalidArgument

FIELDS = ("at_s", "image", "images", "question", "question_tokens", "answer_tokens")
_MOST_TOKENS, _MOST_IMAGES, _MOST_ID = 1_000_000, 64, 10**9
_OTHER_PICTURES = 2 * _MOST_ID  # ids past those that a trace may have


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests, the same in every part, and what their images are: a path, or the id of an image to be made."""

    file: Path
    recorded: list[Ask]
    images: list[Path | int]

    def asks(self, part: int = 0) -> list[Ask]:
        """See `Load`. Part 0 is what was recorded. Others, which warm up, are like it, with pictures and texts of their own:
        what was asked before would be found in caches.
        """
        if part == 0:
            return list(self.recorded)
        draw = Random(f"{self.file.name}/{part}")
        return [
            replace(
                ask,
                images=tuple(len(self.images) + image for image in ask.images),
                question=question(draw, max(1, len(ask.question.split()))),
            )
            for ask in self.recorded
        ]

    def warming(self, part: int) -> list[Ask]:
        """See `Load`."""
        return self.asks(part + 1)

    @property
    def sources(self) -> list[Path | int]:
        """Of an album: the images, then as many that are made for other parts than the first."""
        return [*self.images, *range(_OTHER_PICTURES, _OTHER_PICTURES + len(self.images))]

    def described(self) -> dict[str, Any]:
        """See `Load`."""
        return {"trace": self.file.name, "requests": len(self.recorded), "images": len(self.images)}

    def without_times(self) -> Trace:
        """The same requests for a closed loop, in which nothing is due."""
        return replace(self, recorded=[replace(ask, due_s=None) for ask in self.recorded])


@dataclass(slots=True)
class _Reading:
    file: Path
    answer_tokens: int | None
    draw: Random
    styles: Iterator[int]
    places: dict[Path | int, int] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        if unknown := sorted(set(row) - set(FIELDS)):
            raise InvalidArgument(where, f"unknown field {unknown[0]!r}", limit=", ".join(FIELDS))
        if len(self.asks) == MOST_REQUESTS:
            raise InvalidArgument(where, "one request too many", limit=f"{MOST_REQUESTS:,}")
        at_s = self._time(where, row)
        images = tuple(self._place(where, each) for each in _images(where, row))
        answer_tokens = _count(where, row, "answer_tokens", least=1)
        text = self._text(where, row)
        length = self.answer_tokens if answer_tokens is None else answer_tokens
        self.asks.append(Ask(len(self.asks), at_s, images, text, length, next(self.styles)))

    def _time(self, where: str, row: Mapping[str, Any]) -> float:
        value = row.get("at_s")
        try:
            if isinstance(value, bool):
                raise TypeError
            at_s = float(value)  # type: ignore[arg-type]  # what is no number is refused below
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgument(f"{where}: at_s", f"{value!r:.40} is not a number of seconds") from None
        last_s = (self.asks[-1].due_s if self.asks else None) or 0.0
        if not last_s <= at_s < float("inf"):
            raise InvalidArgument(f"{where}: at_s", f"{at_s:g}", limit=f"at least {last_s:g}, the time of the line before")
        return at_s

    def _place(self, where: str, image: str | int) -> int:
        key: Path | int = image if isinstance(image, int) else self.file.parent / image
        try:
            found = isinstance(key, int) or key.is_file()
        except OSError:  # a name that no file can have, a folder that may not be read
            found = False
        if not found:
            raise InvalidArgument(f"{where}: images", f"{key} is not a file")
        return self.places.setdefault(key, len(self.places))

    def _text(self, where: str, row: Mapping[str, Any]) -> str:
        text, words = row.get("question"), _count(where, row, "question_tokens", least=1)
        if text and words is None:
            if not isinstance(text, str):
                raise InvalidArgument(f"{where}: question", f"{text!r} is not a text")
            return text
        if text or words is None:
            raise InvalidArgument(where, "needs one of question and question_tokens")
        return question(self.draw, words)


def read_trace(file: Path, *, answer_tokens: int | None, mix: Sequence[float] = (1.0,), seed: int = 0) -> Trace:
    """Reads a trace.

    Args:
        answer_tokens: of requests that do not say; `None`: as many as the model likes.
        mix: weights of the styles, which are drawn as those of a `Workload` are.
        seed: of texts that are made, and of styles.

    Raises:
        InvalidArgument: names the file, the line, the field and what it may be.
    """
    reading = _Reading(file, answer_tokens, Random(f"{seed}/trace"), style_draws(mix, seed, part=0))
    for where, row in _rows(file):
        reading.add(where, row)
    if not reading.asks:
        raise InvalidArgument(str(file), "no requests")
    return Trace(file, reading.asks, list(reading.places))


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(str(file), f"cannot be read: {error}") from error
    if file.suffix.lower() == ".csv":
        yield from _table(file, text)
        return
    # Not splitlines(): a text may hold other marks of a line's end than those between lines.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", _json(f"{file}:{number}", line)


def _table(file: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            where = f"{file}:{reader.line_num}"
            if None in row:
                raise InvalidArgument(where, "more values than columns")
            yield where, {name: value for name, value in row.items() if value not in ("", None)}
    except csv.Error as error:
        raise InvalidArgument(f"{file}:{reader.line_num + 1}", f"not CSV: {error}") from None


def _json(where: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(where, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(where, "not a JSON object")
    return {name: each for name, each in value.items() if each is not None}


def _images(where: str, row: Mapping[str, Any]) -> list[str | int]:
    if "image" in row and "images" in row:
        raise InvalidArgument(where, "has both image and images")
    value = row.get("image", row.get("images", []))
    several = value.split(";") if isinstance(value, str) else value if isinstance(value, list) else [value]
    if len(several) > _MOST_IMAGES:
        raise InvalidArgument(f"{where}: images", f"{len(several)}", limit=f"{_MOST_IMAGES}")
    return [_image(where, each) for each in several]


def _image(where: str, value: Any) -> str | int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_MOST_ID)):
        value = int(value)
    elif isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_ID:
        return value
    raise InvalidArgument(f"{where}: images", f"{value!r:.40} is neither a path nor an id from 0", limit=f"{_MOST_ID:,}")


def _count(where: str, row: Mapping[str, Any], name: str, *, least: int) -> int | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_MOST_TOKENS)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST_TOKENS:
        raise InvalidArgument(f"{where}: {name}", f"{value!r}", limit=f"a whole number, {least} to {_MOST_TOKENS:,}")
    return value
