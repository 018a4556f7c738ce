"""`vscan up` as a process, as a user starts it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.client_cli import in_a_process

WAIT_S = 120.0


class Up:
    """A running `vscan up`, and every process that it has started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.addresses: dict[str, str] = {}
        self.children: dict[str, psutil.Process] = {}

    def read_until(self, beginning: str) -> None:
        """Reads its stdout up to a line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith(beginning):
                return
        raise AssertionError(f"vscan up ended before it said {beginning!r}: {''.join(self.said)}")

    def wait_ready(self) -> None:
        """Waits until it has told where everything is."""
        self.read_until("  stop")
        self.addresses = dict(re.findall(r"^ +(decoder|encoder|redis|gateway|page) +(\S+)$", "".join(self.said), re.MULTILINE))
        self.remember_children()

    def remember_children(self) -> None:
        """Notes which processes it has started, by what they are."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            command = " ".join(child.cmdline())
            names = [
                name
                for name in ("redis", "encoder", "decoder", "gateway", "page")
                if f"{name}_service" in command or f"{name}-server" in command
            ]
            self.children[names[0] if names else command] = child

    def end(self, how: signal.Signals) -> tuple[int, list[str]]:
        """Sends it a signal, reads the rest, and gives its exit code and the lines of its stderr."""
        self.process.send_signal(how)
        return self.outcome()

    def outcome(self) -> tuple[int, list[str]]:
        """Waits for its end, and gives its exit code and the lines of its stderr."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.said += self.process.stdout
        err = self.process.stderr.read()
        return self.process.wait(WAIT_S), err.splitlines()

    def left(self) -> list[psutil.Process]:
        """Which of the noted processes do not end."""
        _, alive = psutil.wait_procs(list(self.children.values()), timeout=WAIT_S)
        return alive


@contextmanager
def vscan_up(*arguments: object, folder: Path) -> Iterator[Up]:
    """Starts it in `folder`; whatever the test did, nothing of it is left afterwards."""
    command = in_a_process("up", *arguments)
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        up = Up(process)
        try:
            yield up
        finally:
            process.kill()
            for child in up.left():
                child.kill()


@contextmanager
def taken_ports(count: int) -> Iterator[Sequence[str]]:
    """Loopback addresses that somebody listens on."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
