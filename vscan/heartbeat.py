"""Whether a worker still gets anywhere, seen from outside."""

from __future__ import annotations

import sys
import threading
import time
import traceback


class Heartbeat:
    """Since when a worker has been at one piece of its work. One writes it, anybody reads it, and a beat is one store.

    Args:
        name: of the worker, for logs: "the engine".
        threads: how the names of its threads begin.
    """

    __slots__ = ("_since", "_threads", "name")

    def __init__(self, name: str, *, threads: str) -> None:
        self.name = name
        self._threads = threads
        self._since: float | None = None

    @property
    def since(self) -> float | None:
        """When the piece of work under way began, on the monotonic clock; None while there is none."""
        return self._since

    def begin(self) -> None:
        """A piece of work begins, and the one before has ended."""
        self._since = time.monotonic()

    def rest(self) -> None:
        """There is nothing to do."""
        self._since = None

    def stacks(self) -> str:
        """Where its threads are: files, lines and functions, no values."""
        frames = sys._current_frames()
        found = [thread for thread in threading.enumerate() if thread.name.startswith(self._threads)]
        return "\n".join(
            f"thread {thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
            for thread in found
            if thread.ident in frames
        )
