"""The images and videos below folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vscan_client._files import is_media_file


@dataclass(slots=True)
class MediaFiles:
    """What was found. Names alone: no file was read yet beyond its first bytes."""

    files: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # what, and why
    others: int = 0  # files that are neither

    def note(self, path: str, error: OSError) -> None:
        """It cannot be read."""
        self.unreadable.append((path, error.strerror or "cannot be read"))


def find_media(given: Sequence[str]) -> MediaFiles:
    """Files as they are named, and below each folder those that look like images or videos, sorted folder by folder.

    Links are followed, but no folder is looked into twice, so that a link to a folder above ends somewhere. What begins with a
    dot is hidden and passed over.
    """
    found = MediaFiles()
    visited: set[tuple[int, int]] = set()
    for path in given:
        if os.path.isdir(path):  # noqa: PTH112  # pathlib's raises where it may not look
            for file in _files_below(path, visited, found):
                _sort_in(file, found)
        else:
            found.files.append(path)
    return found


def _files_below(folder: str, visited: set[tuple[int, int]], found: MediaFiles) -> Iterator[str]:
    def note(error: OSError) -> None:
        found.note(str(error.filename), error)

    for where, folders, files in os.walk(folder, onerror=note, followlinks=True):
        if (identity := _identity(where)) in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(where, name) for name in sorted(files) if not name.startswith("."))  # noqa: PTH118  # kept as text


def _identity(folder: str) -> tuple[int, int]:
    """The same for all links to a folder."""
    try:
        status = Path(folder).stat()
    except OSError:  # gone meanwhile: what was seen of it will say so
        return (0, 0)
    return status.st_dev, status.st_ino


def _sort_in(file: str, found: MediaFiles) -> None:
    try:
        if is_media_file(file):
            found.files.append(file)
        else:
            found.others += 1
    except OSError as error:
        found.note(file, error)
