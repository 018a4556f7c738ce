"""Caches over a real Redis, with counts to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.support.redis_server import RedisServer
from vscan.cache.recorder import CountingRecorder
from vscan.cache.redis import RedisCache
from vscan.cache.settings import CacheSettings, check_cache_settings
from vscan.cache.tiers import TieredCache

# Long enough that a busy machine is no fault of Redis; short where a test wants the deadline to pass.
PATIENT_MS = 30_000


def cache_settings(url: str, **changes: Any) -> CacheSettings:
    """Settings for a test: patient with Redis, a short pause of the breaker."""
    return CacheSettings(**{"redis_url": url, "redis_timeout_ms": PATIENT_MS, "redis_breaker_pause_ms": 20, **changes})


@asynccontextmanager
async def redis_cache(server: RedisServer, **changes: Any) -> AsyncIterator[tuple[RedisCache, CountingRecorder]]:
    """A Redis tier and its counts."""
    async with open_cache(server.url, **changes) as opened:
        yield opened


@asynccontextmanager
async def open_cache(url: str, **changes: Any) -> AsyncIterator[tuple[RedisCache, CountingRecorder]]:
    """The same, by a URL, which is checked as a service checks it."""
    recorder = CountingRecorder()
    tracer = changes.pop("tracer", None)
    settings = cache_settings(url, **changes)
    check_cache_settings(settings)
    cache = RedisCache.from_settings(settings, recorder=recorder, tracer=tracer)
    try:
        yield cache, recorder
    finally:
        await cache.aclose()


@asynccontextmanager
async def tiered_cache(server: RedisServer | None, **changes: Any) -> AsyncIterator[tuple[TieredCache, CountingRecorder]]:
    """Both tiers, or memory alone, and their counts."""
    recorder = CountingRecorder()
    tracer = changes.pop("tracer", None)
    settings = cache_settings(server.url if server else "", **changes)
    cache = TieredCache.from_settings(settings, recorder=recorder, tracer=tracer)
    try:
        yield cache, recorder
    finally:
        await cache.aclose()


@asynccontextmanager
async def raw_client(server: RedisServer) -> AsyncIterator[Redis]:
    """A plain client, to look and to spoil behind the cache's back."""
    client = Redis.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


def secret_file(folder: Path, secret: bytes = b"0123456789abcdef") -> Path:
    """A file with a cache secret."""
    path = folder / f"secret-{secret.hex()}"
    path.write_bytes(secret)
    return path
