"""Clocks that can be put forward and back while a process runs: libfaketime, preloaded, reads a file of the process' own."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = "faketime/libfaketimeMT.so.1"  # of Debian's package `libfaketime`
_PLACES = [Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu")]


def library() -> Path | None:
    """Where it is, if it is installed."""
    return next((place / _LIBRARY for place in _PLACES if (place / _LIBRARY).is_file()), None)


class Clock:
    """The clock of one process; right until it is moved. Monotonic time goes on as it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.move(0)

    def move(self, seconds: int) -> None:
        """From now on it is so much ahead of the machine's, or behind it."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(f"{seconds:+d}")
        partial.replace(self._file)  # never half a number

    def environment(self) -> dict[str, str]:
        """For the process."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # reads the file once a second: without that each look at a clock would
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
