"""A small file that may be replaced while it is used: by an editor, a rename, or Kubernetes, which swaps a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# What tells two versions of a file apart. A swapped link leads to another inode, an edit in place to another time or size,
# new permissions to another time of change.
_Signature = tuple[int, int, int, int, int]


class FileTooLarge(OSError):
    """The file has more bytes than it may."""


class WatchedFile:
    """Reads a file at the first asking, and again when it has changed. Not for several threads at once.

    Args:
        path: links are followed at each look.
        max_bytes: a larger file is not read.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._seen: _Signature | None = None
        self._was_read = False

    def read_if_changed(self) -> bytes | None:
        """The content, if it is another version than at the last call; else None, also where that one could not be read.

        Raises:
            OSError: it cannot be read, or is too large (`FileTooLarge`).
        """
        now = self._signature()
        if now == self._seen:
            return None
        self._seen = now
        return self._read()

    def _signature(self) -> _Signature | None:
        try:
            return _signature_of(self.path.stat())
        except OSError:
            self._seen = None  # whatever comes to be there is news, also what was there before
            raise

    def _read(self) -> bytes:
        with open(self.path, "rb", opener=_open_regular if self._was_read else None) as file:
            # Of the file that is read, not of the path: between the two looks the path may have come to lead elsewhere.
            self._seen = _signature_of(os.fstat(file.fileno()))
            content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise FileTooLarge(0, f"more than {self._max_bytes:,} bytes", str(self.path))
        self._was_read = True
        return content


def _open_regular(path: str, flags: int) -> int:
    """A file that has become a pipe would be waited for, perhaps for ever. At first it may be one: `<(…)` of a shell."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def _signature_of(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino, status.st_size
