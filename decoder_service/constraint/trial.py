"""Compiles a constraint first in a process that may be ended: what the library's own limits miss ends there, not here.

A few characters of JSON schema (`multipleOf` twice, patterns that must all hold) can keep the library busy for ever, with more
memory each second, in a thread that cannot be stopped. So each new constraint is tried by a child of a process that serves
nothing else; the child has a bound on its processor time and on its memory.

    decoder ── length, source ──▶ trier ── fork ──▶ child: compiles, ends
            ◀── ok or too much ──       ◀── status ──
"""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

_LENGTH = struct.Struct(">II")  # bytes of the source, milliseconds of processor time
_MEMORY_BYTES = 2**29  # beyond what the trier has; a schema of 300 properties takes a few MiB
_GRACE_SECONDS = 30.0  # of a machine that has no processor to spare
_OK, _TOO_MUCH = b"\x01", b"\x00"
# In the library's own measure of work. With these the costliest expressions that were tried took 35 ms to compile and 13 ms in
# a step, which all sequences of the step wait for; a schema of 300 properties takes 10 ms and 0.4 ms.
LIMITS = LLParserLimits(initial_lexer_fuel=50_000, step_lexer_fuel=200_000, verbose_errors=False)


class Triers:
    """Processes that try constraints, at most `count`; made when they are needed. Any thread may ask."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[_Trier] = SimpleQueue()
        self._all = [_Trier() for _ in range(count)]
        for trier in self._all:
            self._free.put(trier)

    def passes(self, source: str, max_ms: int) -> bool:
        """Whether the library comes to an end with it, in so much of a processor's time and little memory."""
        with self._one() as trier:
            return trier.passes(source.encode(), max_ms)

    def close(self) -> None:
        """Ends all of them; who waits for one gets that it does not pass."""
        for trier in self._all:
            trier.end()

    @contextmanager
    def _one(self) -> Iterator[_Trier]:
        trier = self._free.get()
        try:
            yield trier
        finally:
            self._free.put(trier)


class _Trier:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def passes(self, source: bytes, max_ms: int) -> bool:
        process = self._running()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_LENGTH.pack(len(source), max_ms) + source)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], max_ms / 1000 + _GRACE_SECONDS)
            answer = process.stdout.read(1) if ready else b""
        except OSError:
            answer = b""
        if answer not in (_OK, _TOO_MUCH):
            self.end()
        return answer == _OK

    def end(self) -> None:
        """With all its children."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).resolve())],  # -P: its folder is no place to import from
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,  # a group of its own, to be ended whole
            )
        return self._process


def serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """The trier's own loop; ends with the one that asks."""
    tokenizer = LLTokenizer("byte")
    while len(head := asked.read(_LENGTH.size)) == _LENGTH.size:
        size, max_ms = _LENGTH.unpack(head)
        source = asked.read(size).decode()
        child = os.fork()
        if child == 0:
            _bound(max_ms)
            LLMatcher(tokenizer, source, log_level=0, limits=LIMITS)
            os._exit(0)  # refused or not: that it came to an end is what was asked
        _, status = os.waitpid(child, 0)
        answers.write(_OK if status == 0 else _TOO_MUCH)
        answers.flush()


def _bound(max_ms: int) -> None:
    """This process ends at so much processor time or memory."""
    with Path("/proc/self/statm").open() as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY_BYTES, now + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, max_ms / 1000)


if __name__ == "__main__":
    os.nice(5)
    serve(sys.stdin.buffer, sys.stdout.buffer)
