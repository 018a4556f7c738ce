"""A child process of the local stack: read, noticed, and never left behind."""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.support.until import until
from vscan_client.cli.child import Child

WAIT_S = 30.0


class Watched:
    """Makes children and keeps what they said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.children: list[Child] = []

    def run(self, program: str, name: str = "encoder") -> Child:
        child = Child(
            name,
            [sys.executable, "-c", program],
            environment=dict(os.environ),
            on_line=lambda *line: self.lines.append(line),
            on_end=lambda: self.ended.put(name),
        )
        self.children.append(child)
        return child


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    for child in watched.children:
        child.kill()
        assert child.wait(WAIT_S)


def test_its_lines_are_read_and_its_end_is_told(watched: Watched) -> None:
    child = watched.run("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)")
    assert watched.ended.get(timeout=WAIT_S) == "encoder"
    assert sorted(watched.lines) == [("encoder", "one"), ("encoder", "two")]
    assert not child.running
    assert child.why_ended() == "ended with code 3: two"
    assert not child.expected


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; print('Warning: x', file=sys.stderr); sys.exit('vscan-encoder: no such model')", "no such model"),
        ("import sys; print('vscan-encoder: no such model', file=sys.stderr); sys.exit('noise at the end')", "no such model"),
        ("print('only this'); raise SystemExit(1)", "ended with code 1: only this"),
        ("raise SystemExit(1)", "ended with code 1"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL"),
    ],
)
def test_why_it_ended(watched: Watched, program: str, why: str) -> None:
    child = watched.run(program)
    assert child.wait(WAIT_S)
    assert child.why_ended() == why


TIDY = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
signal.pause()
"""


async def test_it_is_asked_to_end(watched: Watched) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    )
    child = watched.run(program)
    while not watched.lines and child.running:
        pass
    child.terminate()
    assert child.wait(WAIT_S)
    assert (child.expected, child.why_ended()) == (True, "ended with code 0: up")


async def test_what_it_started_ends_with_it(watched: Watched) -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    child = watched.run(program)
    assert child.wait(WAIT_S)
    (grandchild,) = (int(line) for _, line in watched.lines)
    await until(lambda: _gone(grandchild), what="the end of the grandchild")


def test_ctrl_c_in_the_terminal_does_not_reach_it(watched: Watched) -> None:
    child = watched.run("import time; time.sleep(600)")
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()


PARENT = """
import os, sys, threading
from vscan_client.cli.child import Child
sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
up = threading.Event()
child = Child("x", sleeper, environment=dict(os.environ), on_line=lambda name, line: up.set(), on_end=lambda: None)
up.wait()
print(child.pid, flush=True)
child.wait(600)
"""


async def test_it_ends_with_a_parent_that_was_killed() -> None:
    pid = _child_of_a_killed_parent()
    await until(lambda: _gone(pid), what="the end of the child")


def _child_of_a_killed_parent() -> int:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not _gone(pid)
        parent.send_signal(signal.SIGKILL)
    return pid


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
