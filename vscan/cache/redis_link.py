"""How Redis is asked: within a deadline, spared while it is broken, counted and traced."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span, SpanKind, Tracer
from redis.exceptions import ResponseError

from vscan.cache.breaker import CircuitBreaker
from vscan.cache.recorder import CacheRecorder, CountingRecorder, Outcome
from vscan.cache.redis_client import RedisClient, open_client
from vscan.cache.settings import CacheSettings
from vscan.errors import StartupError
from vscan.rpc.tls_files import Rotating, load_pair
from vscan.telemetry import names

log = logging.getLogger(__name__)

T = TypeVar("T")


class Access(StrEnum):
    """What a Redis that is full, or has become a replica, still does and does not."""

    READ = "read"
    WRITE = "write"


class Operation(StrEnum):
    """What is asked of Redis."""

    GET = "get"
    EXISTS = "exists"
    SET = "set"
    DELETE = "delete"
    LEASE = "lease"
    RENEW = "renew"
    RELEASE = "release"

    @property
    def access(self) -> Access:
        """Which breaker it goes through."""
        return Access.READ if self in (Operation.GET, Operation.EXISTS) else Access.WRITE


class NoAnswer(Exception):
    """Redis failed, was too slow, or was not asked."""

    def __init__(self, outcome: Outcome, *, may_have_run: bool = False) -> None:
        """`may_have_run`: the command, whose answer did not come."""
        super().__init__(outcome)
        self.outcome = outcome
        self.may_have_run = may_have_run


class RedisLink:
    """A Redis of any topology. Belongs to one event loop; shared by the cache and the leases.

    Reads and writes have a breaker each: a full Redis answers reads. An error that Redis itself answers is a fault of what was
    asked for alone; a broken connection or a passed deadline is a fault of both, for the other one until the one that met it
    succeeds: a decoder hardly writes, and would not find out.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        renewed: Rotating[RedisClient] | None = None,
        timeout_ms: int,
        connections: int,
        breakers: Mapping[Access, CircuitBreaker],
        recorder: CacheRecorder | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._client = client
        self._renewed = renewed
        self._asking: Counter[RedisClient] = Counter()
        self._closing: set[asyncio.Task[None]] = set()  # kept here, or the loop would forget them
        self.recorder = recorder or CountingRecorder()
        self._timeout_seconds = timeout_ms / 1000
        self._places = asyncio.Semaphore(connections)
        self._breakers = breakers
        self._tracer = tracer or NoOpTracer()
        for access in breakers:  # a figure that began with the first fault could not be told from one that is not measured
            self.recorder.left_alone(access, False)

    @classmethod
    def from_settings(
        cls, settings: CacheSettings, *, recorder: CacheRecorder | None = None, tracer: Tracer | None = None
    ) -> RedisLink:
        """Connects on first use, and anew once a file of a secret or of TLS has changed.

        Raises StartupError for a bad URL, an unreadable password or a certificate that is not its key's.
        """
        renewed = Rotating("a file for Redis", _files(settings), partial(_open_checked, settings))
        faults, pause_seconds = settings.redis_breaker_faults, settings.redis_breaker_pause_ms / 1000
        return cls(
            renewed.current(),
            renewed=renewed,
            timeout_ms=settings.redis_timeout_ms,
            connections=settings.redis_connections,
            breakers={access: CircuitBreaker(faults=faults, pause_seconds=pause_seconds) for access in Access},
            recorder=recorder,
            tracer=tracer,
        )

    def left_alone(self, access: Access) -> bool:
        """Whether Redis counts as away for reads or for writes."""
        return self._breakers[access].is_open

    @property
    def client(self) -> RedisClient:
        """The client for the next command. The library reads the files of a connection once, so new files mean a new client."""
        newest = self._client if self._renewed is None else self._renewed.current()
        if newest is not self._client:
            before, self._client = self._client, newest
            self._close_if_left(before)
        return self._client

    def deadline_seconds(self, entries: int) -> float:
        """How long an operation may take that moves so many entries: many large ones are not a slow Redis."""
        return self._timeout_seconds * entries

    @contextmanager
    def span(self, name: str) -> Iterator[Span]:
        """A span for operations on Redis."""
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT) as span:
            span.set_attribute(names.ATTR_DB_SYSTEM, "redis")
            yield span

    async def ask(
        self, operation: Operation, command: Callable[[], Awaitable[T]], span: Span = INVALID_SPAN, entries: int = 1
    ) -> T:
        """Runs a command within its deadline, the wait for a connection included, and tells the breakers.

        Raises:
            NoAnswer: whatever went wrong; nothing else is raised but cancellation.
        """
        breaker = self._breakers[operation.access]
        if not breaker.allows():
            span.set_attribute(names.ATTR_CACHE_RESULT, Outcome.SKIPPED)
            raise NoAnswer(Outcome.SKIPPED)
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(self.deadline_seconds(entries)), self._places:
                answer = await self._run(command)
        except Exception as error:  # whatever the client raises, it is a fault of this tier, not of the request
            span.set_attribute(names.ATTR_CACHE_RESULT, Outcome.ERROR)
            span.set_attribute(names.ATTR_ERROR_TYPE, type(error).__name__)
            self.recorder.asked(operation, (time.perf_counter() - started_s) * 1e3, type(error).__name__)
            self._failed(operation, error)
            raise NoAnswer(Outcome.ERROR, may_have_run=not isinstance(error, ResponseError)) from error
        self.recorder.asked(operation, (time.perf_counter() - started_s) * 1e3)
        self._succeeded(operation)
        return answer

    async def _run(self, command: Callable[[], Awaitable[T]]) -> T:
        client = self.client
        self._asking[client] += 1
        try:
            return await command()
        finally:
            self._asking[client] -= 1
            if client is not self._client:
                self._close_if_left(client)

    def _close_if_left(self, client: RedisClient) -> None:
        """Closes a client that a newer one has replaced, once nobody waits for its answers."""
        if self._asking[client] == 0:
            del self._asking[client]
            closing = asyncio.ensure_future(_close(client))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Closes the connections."""
        await _close(self._client)
        await asyncio.gather(*self._closing)

    def _succeeded(self, operation: Operation) -> None:
        for access, breaker in self._breakers.items():
            closed = breaker.succeeded() if access is operation.access else breaker.forgive(operation.access)
            if closed:
                self.recorder.left_alone(access, False)
                log.info("Redis is used again (%ss)", access)

    def _failed(self, operation: Operation, error: Exception) -> None:
        self.recorder.failed(operation, type(error).__name__)
        answered = isinstance(error, ResponseError)
        for access in (operation.access,) if answered else Access:
            if self._breakers[access].failed(operation.access):
                self.recorder.left_alone(access, True)
                log.warning("Redis is left alone for a while (%ss) after %s on %s", access, type(error).__name__, operation)


def _files(settings: CacheSettings) -> list[Path | None]:
    return [
        settings.redis_password_file,
        settings.redis_sentinel_password_file,
        settings.redis_tls_ca_file,
        settings.redis_tls_cert_file,
        settings.redis_tls_key_file,
    ]


def _open_checked(settings: CacheSettings) -> RedisClient:
    """A client whose certificate fits its key: while a rotation is half done it does not, and the one before goes on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.redis_tls_ca_file is not None:
        try:
            context.load_verify_locations(settings.redis_tls_ca_file)
        except ssl.SSLError as error:
            raise StartupError(f"redis_tls_ca_file: {settings.redis_tls_ca_file} holds no certificate of a CA") from error
    if settings.redis_tls_cert_file is not None and settings.redis_tls_key_file is not None:
        load_pair(context, settings.redis_tls_cert_file, settings.redis_tls_key_file)
    return open_client(settings)


async def _close(client: RedisClient) -> None:
    try:
        await client.aclose()
    except Exception as error:  # of a Redis that is broken as it is left
        log.debug("closing the connections to Redis: %s", type(error).__name__)
