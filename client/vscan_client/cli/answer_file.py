"""The output of `ask-many`: one JSON object a line, an answer or an error, in the order in which they came.

A run that was broken off goes on: answered ids are left alone, errors are tried again, a half-written last line is dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from vscan.errors import InvalidArgument, VScanError
from vscan_client.answer import Answer
from vscan_client.cli.question_file import Id


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier run left: its answers' lines, and whether there is more in the file than those."""

    lines: tuple[str, ...]
    answered: frozenset[Id]
    clean: bool


class AnswerFile:
    """Opens the file for appending. Each line is on its way to the disk before the next question is answered.

    Raises:
        InvalidArgument: the file cannot be written, or holds something else than answers; it is not touched then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = _found_in(path)
            if not found.clean:
                _rewrite(path, found.lines)
            self._file: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InvalidArgument("out", f"{path}: {error.strerror}") from error
        self.answered = found.answered

    def add_answer(self, identity: Id, answer: Answer, meta: Any) -> None:
        """Writes an answer: what `ask --json` prints, without the single tokens."""
        told = answer.to_dict()
        for answered in (told, *told.get("samples", ())):
            del answered["tokens"]
        self._add({"id": identity, **told, **({} if meta is None else {"meta": meta})})

    def add_error(self, identity: Id, error: VScanError, meta: Any) -> None:
        """Writes what went wrong; a later run tries again."""
        told = {"name": type(error).__name__, "message": str(error)}
        self._add({"id": identity, "error": told, **({} if meta is None else {"meta": meta})})

    def _add(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()


def _found_in(path: Path) -> Found:
    if not path.exists():
        return Found((), frozenset(), True)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    *whole, rest = lines  # what follows the last newline was not written to its end
    records = [_record(path, number, line) for number, line in enumerate(whole, 1)]
    kept = {record["id"]: line for record, line in zip(records, whole, strict=True) if "error" not in record}
    return Found(tuple(kept.values()), frozenset(kept), rest == "" and len(kept) == len(whole))


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("id"), str | int) or not record.keys() & {"text", "error"}:
        raise InvalidArgument("out", f"{path}: line {number} is not an answer of `vscan ask-many`; the file is left alone")
    return record


def _rewrite(path: Path, lines: tuple[str, ...]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)
