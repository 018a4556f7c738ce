"""Small disks that can be filled. Mounting one needs root."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 32 * 2**20
_CHUNK = bytes(2**20)


class SmallDisk:
    """A tmpfs of 32 MiB. `fill` leaves not a byte of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Until a write says that there is no space left."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (len(_CHUNK), 4096, 1):
                try:
                    while filler.write(_CHUNK[:size]):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def is_full(self) -> bool:
        """Whether one more byte is refused."""
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"x")
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            probe.unlink(missing_ok=True)
        return False

    def empty(self) -> None:
        """Gives the space back."""
        self._filler.unlink(missing_ok=True)


def can_mount() -> bool:
    """Whether this process may mount a tmpfs, as far as can be told without trying."""
    return os.geteuid() == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mounted at a folder that is made for it; a plain folder, never to be filled, where mounting is not allowed."""
    folder.mkdir()
    if not can_mount():
        yield SmallDisk(folder)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
