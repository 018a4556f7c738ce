"""The last resort: a process that was told to end, and does not, is ended."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading

_EXIT_CODE = 1
_MORE_SECONDS = 5.0  # for the thread of Python's, before the one that needs nothing of Python steps in

_log = logging.getLogger(__name__)


class HardLimit:
    """Ends the process some seconds after `start`, whatever hangs: the event loop, a worker's thread, the interpreter's end.

    First where all threads are (files, lines and functions) goes to stderr.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """From now on; again means: from now on instead."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, _end, [seconds])
        self._timer.name = "hard limit"
        self._timer.daemon = True
        self._timer.start()
        # Written in C: it also works while something holds the interpreter's lock.
        faulthandler.dump_traceback_later(seconds + _MORE_SECONDS, exit=True)


def _end(seconds: float) -> None:
    _log.critical("the process did not end within %g s and is ended now", seconds)
    faulthandler.dump_traceback(all_threads=True)
    logging.shutdown()
    os._exit(_EXIT_CODE)
