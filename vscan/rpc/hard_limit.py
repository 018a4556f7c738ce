"""The last resort: a process that was told to end, and does not, is ended."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time

_EXIT_CODE = 1
_MORE_SECONDS = 5.0  # for the thread of Python's, before the one that needs nothing of Python steps in
_LAST_LINES_SECONDS = 1.0

_log = logging.getLogger(__name__)


class HardLimit:
    """Ends the process some seconds after `start`, whatever hangs: the event loop, a worker's thread, the interpreter's end,
    or whoever should read its output.

    First where all threads are (files, lines and functions) goes to stderr. Spans and figures that were not sent yet are lost.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._at_s: float | None = None  # monotonic

    def start(self, seconds: float) -> None:
        """From now on. Again: no later than it was to be already."""
        at_s = time.monotonic() + seconds
        if self._at_s is not None and self._at_s <= at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at_s = at_s
        self._timer = threading.Timer(seconds, _end, [seconds])
        self._timer.name = "hard limit"
        self._timer.daemon = True
        self._timer.start()
        # Written in C: it also works while something holds the interpreter's lock.
        faulthandler.dump_traceback_later(seconds + _MORE_SECONDS, exit=True, file=_unblocked_stderr())


def _end(seconds: float) -> None:
    _log.critical("the process did not end within %g s and is ended now", seconds)
    faulthandler.dump_traceback(file=_unblocked_stderr(), all_threads=True)
    last_lines = threading.Thread(target=logging.shutdown, daemon=True)  # it may wait for a pipe that nobody reads
    last_lines.start()
    last_lines.join(_LAST_LINES_SECONDS)
    os._exit(_EXIT_CODE)


def _unblocked_stderr() -> int:
    """Stderr, opened once more: a write to it fails where the pipe is full, instead of waiting with the interpreter's lock."""
    descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
    except OSError:  # no /proc, or a socket, which cannot be opened
        return descriptor
