"""Fixtures that all tests share."""

import gc
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.redis_server import RedisServer

# Models of tests are small: more threads only wait for each other, and long where the machine has other work. Read when torch
# is imported, here and in the services that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing on a machine that has other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A run started in the background inherits an ignored SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules and their tests stay: the collector need not walk them, neither while they come nor in each test that has it collect.
gc.disable()


def pytest_collection_finish() -> None:
    """All modules are imported now."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis for the whole run. Use keys of your own; do not stop it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def fresh_redis() -> Iterator[RedisServer]:
    """A real Redis of the test's own: empty, to be killed and paused at will."""
    with RedisServer() as server:
        yield server
