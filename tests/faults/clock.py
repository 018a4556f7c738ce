"""Clocks that can be put forward and back while a process runs: `moved_clock.c`, compiled here and preloaded there.

Debian's libfaketime was tried first: with it Python's `time.sleep` fails, a Redis over jemalloc does not start, and each look
at the clock takes microseconds: what it shows is itself.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("moved_clock.c")


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc")


class Clocks:
    """What is preloaded, and the folder of the clocks' files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "moved_clock.so"
        command = [compiler() or "cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE)]
        subprocess.run(command, check=True)

    def of(self, component: str) -> Clock:
        """A clock of its own."""
        return Clock(self._folder / f"{component}.clock", self._library)


class Clock:
    """The clock of one process; right until it is moved. Monotonic time goes on as it is."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file, self._library = file, library
        self.move(0)

    def move(self, seconds: int) -> None:
        """From now on it is so much ahead of the machine's, or behind it."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:  # in place: it is mapped
            file.write(seconds.to_bytes(8, "little", signed=True))

    def environment(self) -> dict[str, str]:
        """For the process."""
        return {"LD_PRELOAD": str(self._library), "MOVED_CLOCK": str(self._file)}
