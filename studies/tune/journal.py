"""`points.jsonl`: what a run has measured, a point a line, so that it can be broken off and gone on with.

The first line says of what: model, questions and options. A run of anything else does not go on with the file. Others say what
the services said of themselves when they were started.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from studies.tune.asking import Measured
from studies.tune.deployed import Settings
from studies.tune.grid import Known
from studies.tune.point import Point
from vscan.errors import InvalidArgument

NAME = "points.jsonl"
_FORMAT = 1


class Journal:
    """Opens the folder's file for appending.

    Args:
        of: what is measured, by the names that errors use; texts and numbers.
        resume: go on with a file that is there.

    Raises:
        InvalidArgument: there is a file and `resume` is off, or it is of something else, or is no such file, or the folder
            cannot be written. The file is left alone.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any], *, resume: bool) -> None:
        self.path = folder / NAME
        self._done: dict[Point, Measured] = {}
        self._known: dict[str, Known] = {}
        header = {"format": _FORMAT, **of}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
        except OSError as error:
            raise InvalidArgument("--out", f"{folder}: {error.strerror}") from error
        try:
            self._file = self._opened(folder, header, resume=resume)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError):
                raise InvalidArgument("--out", f"{folder}: {error.strerror}") from error
            raise

    def _opened(self, folder: Path, header: dict[str, Any], *, resume: bool) -> TextIO:
        lines = self._read() if self.path.exists() else []
        if lines and not resume:
            raise InvalidArgument("--out", f"{folder} has points of an earlier run: go on with --resume, or name another")
        self._take(lines, header)
        known = [{"started_with": json.loads(how), "known": asdict(what)} for how, what in self._known.items()]
        whole = [header, *known, *(measured.to_json() for measured in self._done.values())]
        partial = self.path.with_name(f".{NAME}.partial")
        partial.write_text("".join(f"{json.dumps(line)}\n" for line in whole), encoding="utf-8")
        partial.replace(self.path)
        return self.path.open("a", encoding="utf-8")

    def get(self, point: Point) -> Measured | None:
        """What was measured of it, in this run or before."""
        return self._done.get(point)

    def add(self, measured: Measured) -> None:
        """Keeps it; it is in the file when this returns."""
        self._done[measured.point] = measured
        self._write(measured.to_json())

    def known(self, started_with: Settings) -> Known | None:
        """What services said that were started so, in this run or before; with it a grid is known before they are started."""
        return self._known.get(_text(started_with))

    def add_known(self, started_with: Settings, known: Known) -> None:
        """Keeps what services say of themselves that were started so."""
        if self.known(started_with) != known:
            self._known[_text(started_with)] = known
            self._write({"started_with": json.loads(_text(started_with)), "known": asdict(known)})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _read(self) -> list[dict[str, Any]]:
        try:
            *whole, _ = self.path.read_text(encoding="utf-8").split("\n")  # what follows the last newline is half a line
            lines = [json.loads(line) for line in whole]
        except (ValueError, RecursionError):
            lines = [None]
        if not all(isinstance(line, dict) for line in lines):
            raise InvalidArgument("--out", f"{self.path} is not a file of `vscan tune`; it is left alone") from None
        return lines

    def _take(self, lines: list[dict[str, Any]], header: dict[str, Any]) -> None:
        if not lines:
            return
        before, *rest = lines
        differ = sorted(name for name in header.keys() | before.keys() if header.get(name) != before.get(name))
        if differ:
            raise InvalidArgument(
                "--resume", f"{self.path} is of another run, {' and '.join(differ)} differ; name another --out"
            )
        try:
            told = [line for line in rest if "known" in line]
            self._known = {_text(line["started_with"]): _known(line["known"]) for line in told}
            points = [Measured.from_json(line) for line in rest if "known" not in line]
            self._done = {measured.point: measured for measured in points}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidArgument("--out", f"{self.path} is not a file of `vscan tune`; it is left alone") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
        os.close(self._lock)


def _locked(folder: Path) -> int:
    """A descriptor that keeps others out until it is closed: a second run would replace the file that the first appends to."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise InvalidArgument("--out", f"another run writes to {folder}") from None
        raise
    return lock


def _text(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def _known(told: dict[str, Any]) -> Known:
    return Known(**{**told, "prune_layers": tuple(told["prune_layers"])})
