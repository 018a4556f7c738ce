"""A child process of the local stack: it ends with its parent, its output is read line by line, and its end is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from vscan_client.cli import die_with_parent

# (child's name, line without its newline); called from the child's own threads.
OnLine = Callable[[str, str], None]
_REMEMBERED_LINES = 50


class Child:
    """Runs from its making on, as the leader of a process group of its own, so that Ctrl-C in a terminal does not reach it.

    The kernel kills it when the *thread* that made it ends: make children in a thread that stays.

    Args:
        name: for messages.
        command: with its arguments.
        environment: the whole of it.
        on_line: gets what it writes to stdout and stderr.
        on_end: called once when it has ended, from a thread.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], on_line: OnLine, on_end: Callable[[], None]
    ) -> None:
        self.name = name
        self.expected = False  # whether its end was asked for
        self._output: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._errors: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._ended = threading.Event()
        launcher = [sys.executable, "-I", "-S", str(Path(die_with_parent.__file__)), str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            text=True,
            errors="replace",
        )
        readers = [
            self._thread("out", lambda: self._read(self._process.stdout, self._output, on_line)),
            self._thread("err", lambda: self._read(self._process.stderr, self._errors, on_line)),
        ]
        self._thread("end", lambda: self._watch(readers, on_end))

    @property
    def pid(self) -> int:
        """Process id, and id of its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    def why_ended(self) -> str:
        """Its last word, else its exit code or signal; once it has ended."""
        # A service says why in one line on stderr that begins with its own name.
        own = f"vscan-{self.name}: "
        for line in reversed(self._errors):
            if line.startswith(own):
                return line.removeprefix(own)
        words = [line for line in (*self._output, *self._errors) if line.strip()]
        code = self._process.returncode
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{how}: {words[-1].strip()}" if words else how

    def terminate(self) -> None:
        """Asks it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it, and whatever it has started, at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within `timeout_s`; then its output is read to the end and its group is gone."""
        return self._ended.wait(timeout_s)

    def _signal(self, number: signal.Signals) -> None:
        self.expected = True
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _thread(self, role: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"{self.name}-{role}", daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[str] | None, remembered: deque[str], on_line: OnLine) -> None:
        assert stream is not None
        with stream:
            for line in stream:
                remembered.append(line.rstrip("\n"))
                with suppress(Exception):  # a listener's trouble must not stop the reading, or the child blocks on a full pipe
                    on_line(self.name, line.rstrip("\n"))

    def _watch(self, readers: Sequence[threading.Thread], on_end: Callable[[], None]) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        # What it may have left in its group would keep the pipes open. It is not reaped yet, so the id is still its own.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for reader in readers:
            reader.join()
        self._ended.set()
        on_end()
