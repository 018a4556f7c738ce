"""The output of `ask-many` and of `eval`: one JSON object a line, an answer or an error, in the order in which they came.

A run that was broken off goes on: answered ids are left alone, errors are tried again, a half-written last line is dropped.
That of `eval` begins with a line `{"settings": {...}}`, and goes on only under the same settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from vscan.errors import InvalidArgument, VScanError
from vscan_client.answer import Answer
from vscan_client.cli.question_file import Id


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier run left: its answers' lines, and whether there is more in the file than those and its settings."""

    lines: tuple[str, ...] = ()
    answered: frozenset[Id] = frozenset()
    settings: Mapping[str, Any] | None = None
    empty: bool = True
    clean: bool = True


class AnswerFile:
    """Opens the file for appending. Each line is on its way to the disk before the next question is answered.

    No other run can open it until it is closed: two would ask everything twice, and one could put away what the other wrote.

    Args:
        path: the file; made where it is not there.
        settings: under which all answers of the file are made, as JSON values; `None`: each question has its own.

    Raises:
        InvalidArgument: the file cannot be written, another run is writing it, or it holds something else than answers, or
            answers under other settings (it says which); it is not touched then.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self._path = path
        head = "" if settings is None else json.dumps({"settings": settings}, ensure_ascii=False) + "\n"
        try:
            with ExitStack() as opened:
                self._file: TextIO = opened.enter_context(_held(path, path))
                found = _found_in(path)
                _refuse_others(path, found, settings)
                opened.pop_all()
            if not found.clean or (settings is not None and found.settings is None):
                with self._file as before:
                    self._file = _rewritten(path, head, found.lines, before)
        except OSError as error:
            raise InvalidArgument("--out", f"{path}: {error.strerror}") from error
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


def read_answers(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file's answers and errors, one by one. Raises InvalidArgument for a file of something else."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            record = _record(path, number, line)
            if "settings" not in record:
                yield record


def _found_in(path: Path) -> Found:
    if not path.exists():
        return Found()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    *whole, rest = lines  # what follows the last newline was not written to its end
    records = [_record(path, number, line) for number, line in enumerate(whole, 1)]
    settings = records[0]["settings"] if records and "settings" in records[0] else None
    kept = {record["id"]: line for record, line in zip(records, whole, strict=True) if "text" in record}
    clean = rest == "" and len(kept) + (settings is not None) == len(whole)
    return Found(tuple(kept.values()), frozenset(kept), settings, not whole, clean)


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not (_is_answer(record) or (number == 1 and _is_head(record))):
        raise InvalidArgument(
            "--out", f"{path}: line {number} is not an answer of `vscan ask-many` or `eval`; the file is left alone"
        )
    return record


def _is_answer(record: dict[str, Any]) -> bool:
    return isinstance(record.get("id"), str | int) and len(record.keys() & {"text", "error"}) == 1


def _is_head(record: dict[str, Any]) -> bool:
    return record.keys() == {"settings"} and isinstance(record["settings"], dict)


def _refuse_others(path: Path, found: Found, settings: Mapping[str, Any] | None) -> None:
    if (found.settings is None) != (settings is None) and not found.empty:
        raise InvalidArgument("--out", f"{path} holds answers of another command; the file is left alone")
    if found.settings is None or settings is None:
        return
    now = json.loads(json.dumps(settings))
    changed = [name for name in (found.settings | now) if found.settings.get(name) != now.get(name)]
    if changed:
        told = "; ".join(f"{name} was {_told(found.settings, name)}, is {_told(now, name)}" for name in changed)
        raise InvalidArgument("--out", f"{path} was begun with other settings: {told}; the file is left alone")


def _told(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not given"


def _rewritten(path: Path, head: str, lines: tuple[str, ...], before: TextIO) -> TextIO:
    """The file with only these lines, open and held as the one whose place it takes was."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    file = _held(partial, path)
    file.write(head + "".join(f"{line}\n" for line in lines))
    file.flush()
    if os.name == "nt":  # Windows replaces no file that is open
        before.close()
        file.close()
    partial.replace(path)
    return _held(path, path) if file.closed else file


def _held(file: Path, path: Path) -> TextIO:
    """Open for appending, and kept from other runs where the system can do that. Raises InvalidArgument, OSError."""
    opened = file.open("a", encoding="utf-8")
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return opened
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        opened.close()
        raise InvalidArgument("--out", f"{path}: another run is writing it") from error
    except OSError:  # a file system without locks
        pass
    return opened
