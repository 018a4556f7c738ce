"""Fixtures that all tests share."""

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer


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
