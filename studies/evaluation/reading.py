"""The field's files as rows that know where they stand, so that an error can say so."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from studies.evaluation.pictures import Picture, inside
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file. `where` is `file:line`, or the place in a JSON document: `file: questions[3]`."""

    where: str
    values: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def bad(self, name: str, problem: str) -> InvalidArgument:
        """The error that names the place and the field."""
        return InvalidArgument("--questions", f"{self.where}: {name}: {problem}")

    def text(self, name: str) -> str:
        """A text that is not empty. Raises InvalidArgument."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(name, "a text is needed" if value is None else f"{_shown(value)} where a text is needed")
        return value

    def plain_text(self, name: str) -> str:
        """A text, which may be empty: a person's answer. Raises InvalidArgument."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self.bad(name, f"{_shown(value)} where a text is needed")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text, or `None` where there is none or an empty one. Raises InvalidArgument for something else."""
        return self.text(name) if self.values.get(name) not in (None, "") else None

    def integer(self, name: str) -> int:
        """A whole number; of a table, where all is text, also one spelled in digits. Raises InvalidArgument."""
        value = self.values.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.bad(
                name, "a whole number is needed" if value is None else f"{_shown(value)} where a whole number is needed"
            )
        return value

    def identity(self, name: str) -> Id:
        """A text or a whole number. Raises InvalidArgument."""
        value = self.values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else self.text(name)

    def texts(self, name: str) -> list[str]:
        """A list of texts, at least one. Raises InvalidArgument."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise self.bad(name, "a list of texts is needed")
        return value

    def rows(self, name: str) -> list[Row]:
        """A list of objects. Raises InvalidArgument."""
        return rows_of(self.values.get(name), f"{self.where}: {name}")

    def picture(self, name: str, folder: Path, form: str = "{}") -> Picture:
        """The image that the field names, in the folder; `form` makes a file name of it (`{}.jpg`). Raises InvalidArgument."""
        return self.picture_called(form.format(self.identity(name)), name, folder)

    def picture_called(self, file: str, name: str, folder: Path) -> Picture:
        """The image of that file name, which the field led to. Raises InvalidArgument."""
        try:
            return Picture(inside(folder, file))
        except InvalidArgument as error:
            raise self.bad(name, error.problem) from error


def read_rows(path: Path) -> list[Row]:
    """Every record of a file: JSON (a list of objects), lines of JSON (also where the file is called `.json`), TSV or CSV.

    TGIF-QA's files are called `.csv` and have tabs; so may others.

    Raises:
        InvalidArgument: the file cannot be read or holds something else; names file and line.
    """
    suffix = path.suffix.lower()
    if suffix in {".tsv", ".csv"}:
        return list(_table_rows(path, "\t" if suffix == ".tsv" or _has_tabs(path) else ","))
    text = read_text(path)
    if suffix == ".jsonl" or _is_lines(text):
        return list(_line_rows(path, text))
    return rows_of(parse_json(path, text), f"{path}: ")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InvalidArgument naming file and line."""
    return parse_json(path, read_text(path))


def read_object(path: Path) -> Row:
    """A JSON file that holds one object. Raises InvalidArgument."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InvalidArgument("--questions", f"{path}: a JSON object is needed")
    return Row(str(path), value)


def rows_of(value: Any, where: str) -> list[Row]:
    """A list of objects as rows; `where` is the list's place. Raises InvalidArgument."""
    if not isinstance(value, list):
        raise InvalidArgument("--questions", f"{where.rstrip(': ')}: a list is needed")
    for index, each in enumerate(value):
        if not isinstance(each, dict):
            raise InvalidArgument("--questions", f"{where}[{index}]: an object is needed")
    return [Row(f"{where}[{index}]", each) for index, each in enumerate(value)]


def rows_by_id(rows: Iterable[Row], name: str) -> dict[Id, Row]:
    """Rows by the id in a field. Raises InvalidArgument where two have the same, naming both places."""
    found: dict[Id, Row] = {}
    for row in rows:
        key = row.identity(name)
        if (first := found.setdefault(key, row)) is not row:
            raise row.bad(name, f"{key!r} is there twice, at {first.where} too")
    return found


def labels_by(rows: Iterable[tuple[K, V, str]]) -> dict[K, V]:
    """Labels by what they are of. Said twice a label may be. Raises InvalidArgument where two differ, naming both places.

    Args:
        rows: of each label what it is of, the label, and its place.
    """
    found: dict[K, tuple[V, str]] = {}
    for key, label, where in rows:
        first, at = found.setdefault(key, (label, where))
        if first != label:
            raise InvalidArgument("--annotations", f"{where}: another label than at {at}, of the same question")
    return {key: label for key, (label, _) in found.items()}


def read_text(path: Path) -> str:
    """A file of UTF-8, with or without a byte order mark. Raises InvalidArgument."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def parse_json(path: Path, text: str, *, first_line: int = 1) -> Any:
    """Raises InvalidArgument naming file and line, also of an object that has one name twice: Python would take the last."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _TwiceError as error:
        raise InvalidArgument("--questions", _told_twice(path, text, first_line, error.name)) from None
    except ValueError as error:
        line = first_line - 1 + (error.lineno if isinstance(error, json.JSONDecodeError) else 1)
        raise InvalidArgument("--questions", f"{path}:{line}: not JSON") from error


class _TwiceError(Exception):
    """A name that an object has twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        raise _TwiceError(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return made


def _told_twice(path: Path, text: str, first_line: int, name: str) -> str:
    """With both lines, where no other object has that name."""
    places = [match.start() for match in re.finditer(re.escape(json.dumps(name)) + r"\s*:", text)]
    lines = [first_line + text.count("\n", 0, place) for place in places]
    at = f", in lines {lines[0]} and {lines[1]}" if len(lines) == 2 else ""
    return f"{path}: {name!r} is there twice in one object{at}"


def _is_lines(text: str) -> bool:
    """Whether the first line is an object by itself, as in POPE's files, and another one follows."""
    first, _, rest = text.lstrip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")


def _line_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = parse_json(path, line, first_line=number)
            if not isinstance(value, dict):
                raise InvalidArgument("--questions", f"{path}:{number}: not a JSON object")
            yield Row(f"{path}:{number}", value)


def _has_tabs(path: Path) -> bool:
    """Whether the first line has any. Raises InvalidArgument."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return "\t" in file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _table_rows(path: Path, delimiter: str) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, _long_fields():
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            for values in reader:
                if None in values or None in values.values():
                    _refuse_ragged(path, reader.line_num)
                yield Row(f"{path}:{reader.line_num}", values)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    except csv.Error as error:
        raise InvalidArgument("--questions", f"{path}: {error}") from error


def _refuse_ragged(path: Path, line: int) -> NoReturn:
    raise InvalidArgument("--questions", f"{path}:{line}: not as many fields as the first line names")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields as long as an image in base64; the library's own limit, which is the process's, comes back afterwards."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> InvalidArgument:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
    return InvalidArgument("--questions", f"{path}: {reason}")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:60]
