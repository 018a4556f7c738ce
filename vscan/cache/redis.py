"""The Redis tier: sealed entries shared by all replicas. Redis slow, away or full costs speed, never an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from opentelemetry.trace import NoOpTracer, Span, Tracer
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from vscan.cache.breaker import CircuitBreaker
from vscan.cache.entry import EntrySeal, Flaw
from vscan.cache.recorder import CacheRecorder, CountingRecorder, Outcome, Tier
from vscan.cache.settings import CacheSettings, cache_secret, read_secret
from vscan.errors import InvalidArgument
from vscan.visual_tokens import VisualTokens

log = logging.getLogger(__name__)

T = TypeVar("T")
KEY_PREFIX = "vscan:vt:"
# Above this many bytes, hashing and parsing leave the event loop: about a millisecond of work.
OFF_LOOP_BYTES = 2**20


class _Lost(Exception):
    """Redis gave no answer."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class RedisCache:
    """Visual tokens by content key, verified on every read. Belongs to one event loop.

    Nothing here raises for a fault of Redis: a lookup misses, a write is dropped, the recorder counts it.
    """

    def __init__(
        self,
        client: Redis,
        *,
        seal: EntrySeal,
        ttl_seconds: int,
        timeout_ms: int,
        breaker: CircuitBreaker,
        recorder: CacheRecorder | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._client = client
        self._seal = seal
        self._ttl_seconds = ttl_seconds
        self._timeout_seconds = timeout_ms / 1000
        self._breaker = breaker
        self._recorder = recorder or CountingRecorder()
        self._tracer = tracer or NoOpTracer()

    @classmethod
    def from_settings(
        cls, settings: CacheSettings, *, recorder: CacheRecorder | None = None, tracer: Tracer | None = None
    ) -> RedisCache:
        """Connects on first use. Raises StartupError for an unreadable secret."""
        return cls(
            open_client(settings),
            seal=EntrySeal(cache_secret(settings)),
            ttl_seconds=settings.cache_ttl_seconds,
            timeout_ms=settings.redis_timeout_ms,
            breaker=CircuitBreaker(faults=settings.redis_breaker_faults, pause_seconds=settings.redis_breaker_pause_ms / 1000),
            recorder=recorder,
            tracer=tracer,
        )

    async def get(self, key: bytes) -> VisualTokens | None:
        """The verified value, or None."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[VisualTokens | None]:
        """The verified values in the order of `keys`, None where there is none; one round trip."""
        if not keys:
            return []
        with self._tracer.start_as_current_span("redis.get") as span:
            try:
                entries = await self._ask("get", lambda: self._client.mget([_name(key) for key in keys]), span)
            except _Lost as lost:
                self._looked_up(lost.outcome, len(keys))
                return [None] * len(keys)
            values = [await self._open(key, entry) for key, entry in zip(keys, entries, strict=True)]
            span.set_attribute("vscan.cache.keys", len(keys))
            span.set_attribute("vscan.cache.hits", sum(isinstance(value, VisualTokens) for value in values))
            await self._delete([key for key, value in zip(keys, values, strict=True) if isinstance(value, Flaw)])
            return [value if isinstance(value, VisualTokens) else None for value in values]

    async def put(self, key: bytes, body: bytes) -> bool:
        """Writes `VisualTokens.to_bytes()` under its key, for the TTL. False if Redis did not take it."""
        with self._tracer.start_as_current_span("redis.set") as span:
            span.set_attribute("vscan.cache.bytes", len(body))
            entry = await _off_loop_if_large(len(body), lambda: self._seal.seal(key, body))
            try:
                await self._ask("set", lambda: self._client.set(_name(key), entry, ex=self._ttl_seconds), span)
            except _Lost:
                return False
            return True

    async def has_many(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether each key has an entry, unverified, without touching its age; one round trip. False if Redis is away."""
        if not keys:
            return []
        with self._tracer.start_as_current_span("redis.exists") as span:
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(_name(key))
            try:
                return [bool(found) for found in await self._ask("exists", pipeline.execute, span)]
            except _Lost:
                return [False] * len(keys)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _open(self, key: bytes, entry: bytes | None) -> VisualTokens | Flaw | None:
        if entry is None:
            self._looked_up(Outcome.MISS)
            return None
        value = await _off_loop_if_large(len(entry), lambda: self._decode(key, entry))
        if isinstance(value, Flaw):
            self._recorder.entry_rejected(value)
            self._looked_up(Outcome.CORRUPT)
        else:
            self._looked_up(Outcome.HIT)
        return value

    def _decode(self, key: bytes, entry: bytes) -> VisualTokens | Flaw:
        body = self._seal.open(key, entry)
        if isinstance(body, Flaw):
            return body
        try:
            return VisualTokens.from_bytes(bytes(body))
        except InvalidArgument:
            return Flaw.BODY

    def _looked_up(self, outcome: Outcome, count: int = 1) -> None:
        for _ in range(count):
            self._recorder.looked_up(Tier.REDIS, outcome)

    async def _delete(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        log.warning("Redis held %d entries that were not to be trusted; they are deleted", len(keys))
        with self._tracer.start_as_current_span("redis.delete") as span:
            try:
                await self._ask("delete", lambda: self._client.unlink(*(_name(key) for key in keys)), span)
            except _Lost:
                return

    async def _ask(self, operation: str, command: Callable[[], Awaitable[T]], span: Span) -> T:
        """Runs a command within the deadline and tells the breaker. Raises _Lost and nothing else but cancellation."""
        span.set_attribute("db.system.name", "redis")
        if not self._breaker.allows():
            span.set_attribute("vscan.cache.outcome", Outcome.SKIPPED)
            raise _Lost(Outcome.SKIPPED)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await command()
        except Exception as error:  # whatever the client raises, it is a fault of this tier, not of the request
            self._failed(operation, error)
            span.set_attribute("vscan.cache.outcome", Outcome.FAULT)
            span.set_attribute("error.type", type(error).__name__)
            raise _Lost(Outcome.FAULT) from error
        if self._breaker.succeeded():
            log.info("Redis answers again")
        return answer

    def _failed(self, operation: str, error: Exception) -> None:
        self._recorder.redis_fault(operation, type(error).__name__)
        if self._breaker.failed():
            log.warning("Redis is left alone for a while after %s on %s", type(error).__name__, operation)


def open_client(settings: CacheSettings) -> Redis:
    """A client of `redis_url` with the password and the certificates from their files; connects on first use."""
    options: dict[str, object] = {}
    if settings.redis_password_file:
        options["password"] = read_secret(settings.redis_password_file, "redis_password_file").decode()
    tls = {
        "ssl_ca_certs": settings.redis_tls_ca_file,
        "ssl_certfile": settings.redis_tls_cert_file,
        "ssl_keyfile": settings.redis_tls_key_file,
    }
    options.update({name: str(path) for name, path in tls.items() if path})
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=settings.redis_connections,
        timeout=None,  # the operation's deadline covers the wait for a connection
        socket_timeout=None,
        socket_connect_timeout=None,
        # A connection that a restarted Redis left half open costs one more try, not a fault.
        retry=Retry(NoBackoff(), 1),
        protocol=2,
        **options,
    )
    return Redis.from_pool(pool)


def _name(key: bytes) -> str:
    return KEY_PREFIX + key.hex()


async def _off_loop_if_large(size_bytes: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if size_bytes > OFF_LOOP_BYTES else work()
