"""The Redis tier: sealed entries shared by all replicas. Redis slow, away or full costs speed, never an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from opentelemetry.trace import NoOpTracer, Span, SpanKind, Tracer
from redis.asyncio import Redis

from vscan.cache.breaker import CircuitBreaker
from vscan.cache.entry import EntrySeal, Flaw
from vscan.cache.recorder import CacheRecorder, CountingRecorder, Outcome, Tier
from vscan.cache.redis_client import open_client
from vscan.cache.settings import CacheSettings, cache_secret
from vscan.errors import InvalidArgument
from vscan.offload import off_loop_if_large
from vscan.telemetry import names
from vscan.visual_tokens import VisualTokens

log = logging.getLogger(__name__)

T = TypeVar("T")
KEY_PREFIX = "vscan:vt:"


class _NoAnswer(Exception):
    """Redis failed, was too slow, or was not asked."""

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
        pause_seconds = settings.redis_breaker_pause_ms / 1000
        return cls(
            open_client(settings),
            seal=EntrySeal(cache_secret(settings)),
            ttl_seconds=settings.cache_ttl_seconds,
            timeout_ms=settings.redis_timeout_ms,
            breaker=CircuitBreaker(faults=settings.redis_breaker_faults, pause_seconds=pause_seconds),
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
        with self._span(names.SPAN_REDIS_GET) as span:
            span.set_attribute(names.ATTR_CACHE_ENTRIES, len(keys))
            try:
                entries = await self._ask("get", lambda: self._client.mget([_name(key) for key in keys]), span, len(keys))
            except _NoAnswer as silence:
                self._recorder.looked_up(Tier.REDIS, silence.outcome, len(keys))
                return [None] * len(keys)
            values = [await self._open(key, entry) for key, entry in zip(keys, entries, strict=True)]
            trusted = [value if isinstance(value, VisualTokens) else None for value in values]
            span.set_attribute(names.ATTR_CACHE_HIT, None not in trusted)
            span.set_attribute(names.ATTR_CACHE_BYTES, sum(len(entry or b"") for entry in entries))
        await self._delete([key for key, value in zip(keys, values, strict=True) if isinstance(value, Flaw)])
        return trusted

    async def put(self, key: bytes, body: bytes) -> bool:
        """Writes `VisualTokens.to_bytes()` under its key, for the TTL. False if Redis did not take it."""
        entry = await off_loop_if_large(len(body), lambda: self._seal.seal(key, body))
        with self._span(names.SPAN_REDIS_SET) as span:
            span.set_attribute(names.ATTR_CACHE_BYTES, len(entry))
            try:
                await self._ask("set", lambda: self._client.set(_name(key), entry, ex=self._ttl_seconds), span)
            except _NoAnswer as silence:
                self._recorder.written(Tier.REDIS, silence.outcome)
                return False
        self._recorder.written(Tier.REDIS, Outcome.OK)
        return True

    async def has_many(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether each key has an entry, unverified, without touching its age; one round trip. False if Redis is away."""
        if not keys:
            return []
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(_name(key))
        with self._span(names.SPAN_REDIS_EXISTS) as span:
            span.set_attribute(names.ATTR_CACHE_ENTRIES, len(keys))
            try:
                return [bool(found) for found in await self._ask("exists", pipeline.execute, span)]
            except _NoAnswer:
                return [False] * len(keys)

    def deadline_seconds(self, entries: int) -> float:
        """How long an operation may take that moves so many entries: many large ones are not a slow Redis."""
        return self._timeout_seconds * entries

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _open(self, key: bytes, entry: bytes | None) -> VisualTokens | Flaw | None:
        if entry is None:
            self._recorder.looked_up(Tier.REDIS, Outcome.MISS)
            return None
        value = await off_loop_if_large(len(entry), lambda: self._decode(key, entry))
        if isinstance(value, Flaw):
            self._recorder.looked_up(Tier.REDIS, Outcome.BAD_ENTRY)
            self._recorder.rejected(value)
            log.warning("a Redis entry is not to be trusted (%s) and is deleted", value)
        else:
            self._recorder.looked_up(Tier.REDIS, Outcome.HIT)
        return value

    def _decode(self, key: bytes, entry: bytes) -> VisualTokens | Flaw:
        body = self._seal.open(key, entry)
        if isinstance(body, Flaw):
            return body
        try:
            return VisualTokens.from_bytes(bytes(body))
        except InvalidArgument:
            return Flaw.BODY

    async def _delete(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        with self._span(names.SPAN_REDIS_DELETE) as span:
            try:
                await self._ask("delete", lambda: self._client.unlink(*(_name(key) for key in keys)), span)
            except _NoAnswer:
                return  # it stays, and is rejected again

    @contextmanager
    def _span(self, name: str) -> Iterator[Span]:
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT) as span:
            span.set_attribute(names.ATTR_DB_SYSTEM, "redis")
            yield span

    async def _ask(self, operation: str, command: Callable[[], Awaitable[T]], span: Span, entries: int = 1) -> T:
        """Runs a command within its deadline and tells the breaker. Raises _NoAnswer, and nothing else but cancellation."""
        if not self._breaker.allows():
            span.set_attribute(names.ATTR_CACHE_RESULT, Outcome.SKIPPED)
            raise _NoAnswer(Outcome.SKIPPED)
        try:
            async with asyncio.timeout(self.deadline_seconds(entries)):
                answer = await command()
        except Exception as error:  # whatever the client raises, it is a fault of this tier, not of the request
            span.set_attribute(names.ATTR_CACHE_RESULT, Outcome.ERROR)
            span.set_attribute(names.ATTR_ERROR_TYPE, type(error).__name__)
            self._failed(operation, error)
            raise _NoAnswer(Outcome.ERROR) from error
        if self._breaker.succeeded():
            log.info("Redis answers again")
        return answer

    def _failed(self, operation: str, error: Exception) -> None:
        self._recorder.failed(operation, type(error).__name__)
        if self._breaker.failed():
            log.warning("Redis is left alone for a while after %s on %s", type(error).__name__, operation)


def _name(key: bytes) -> str:
    return KEY_PREFIX + key.hex()
