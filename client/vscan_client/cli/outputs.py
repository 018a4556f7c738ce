"""Files that a command writes at its end: looked at before its work, so that minutes of it do not end in a path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vscan.errors import InvalidArgument


def check_folder(option: str, folder: Path, files: Sequence[str] = ()) -> None:
    """Whether a folder can be made, or written where it is there, and these files of it.

    Raises:
        InvalidArgument: naming the option and what is in the way. Nothing is made.
    """
    with named_in_errors(option, folder):
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        if not there.is_dir():
            raise InvalidArgument(option, f"{there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InvalidArgument(option, f"{there} cannot be written")
    for name in files:
        if (folder / name).exists():
            check_file(option, folder / name)


def check_file(option: str, file: Path) -> None:
    """Whether a file can be written; what it holds stays. Raises InvalidArgument naming the option and what is in the way."""
    with named_in_errors(option, file):
        if not file.parent.is_dir():
            raise InvalidArgument(option, f"{file.parent} is not a folder")
        there = file.exists()
        file.open("a").close()
        if not there:
            file.unlink()


def check_apart(files: Sequence[tuple[str, Path | None]]) -> None:
    """Raises InvalidArgument where two options name one file."""
    seen: dict[Path, str] = {}
    for option, file in files:
        if file is None:
            continue
        if (other := seen.setdefault(file.absolute(), option)) != option:
            raise InvalidArgument(option, f"{file} is what {other} writes too")


@contextmanager
def named_in_errors(option: str, path: Path) -> Iterator[None]:
    """Turns what the system says into an error that names option and path."""
    try:
        yield
    except OSError as error:
        raise InvalidArgument(option, f"{path}: {error.strerror}") from error
