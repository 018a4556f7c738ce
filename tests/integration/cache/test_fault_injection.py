"""Whatever lies between a cache and its Redis: requests go on, few of them try, and Redis is used again once it is well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.support.caches import PATIENT_MS, cache_settings, raw_client, redis_cache
from tests.support.encoder import png, running_encoder
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.redis_server import RedisServer
from tests.support.until import until
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import lease_name
from vscan.cache.place import Place
from vscan.cache.recorder import CountingRecorder, Outcome, Tier
from vscan.cache.redis import RedisCache
from vscan.telemetry import names
from vscan.telemetry.metrics import CacheMetrics

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
SLOW_MS = 500.0
SHORT_MS = 250  # the deadline where one must pass: below SLOW_MS, and what a black hole costs an attempt
TRIES = 3  # faults in a row after which Redis is left alone
LONG_PAUSE_MS = 3_600_000
VALUE = make_tokens(3, hidden=4096)  # several packets of an answer


@asynccontextmanager
async def behind(proxy: FaultProxy, **changes: Any) -> AsyncIterator[tuple[RedisCache, CountingRecorder]]:
    """A cache whose way to Redis leads through the proxy."""
    counts = CountingRecorder()
    settings = cache_settings(proxy.url, redis_breaker_faults=TRIES, **changes)
    cache = RedisCache.from_settings(settings, recorder=counts)
    try:
        yield cache, counts
    finally:
        await cache.aclose()


@asynccontextmanager
async def spoilt(
    server: RedisServer, fault: Fault, **changes: Any
) -> AsyncIterator[tuple[FaultProxy, RedisCache, CountingRecorder]]:
    """A cache that had found its entry before the way to it was spoilt."""
    async with redis_cache(server) as (writer, _):
        await writer.put(key("value"), body_of(VALUE))
    silent = fault in (Fault.SLOW, Fault.BLACK_HOLE)
    patience = {"redis_timeout_ms": SHORT_MS if silent else PATIENT_MS}
    async with FaultProxy(server.port) as proxy, behind(proxy, **patience, **changes) as (cache, counts):
        await until(lambda: found(cache), what="found before the fault")
        counts.lookups.clear()
        counts.errors.clear()
        proxy.inject(fault, delay_ms=SLOW_MS)
        yield proxy, cache, counts


async def found(cache: RedisCache) -> bool:
    return same(await cache.get(key("value")), VALUE)


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_some_attempts_a_broken_redis_is_not_tried_any_more(redis_server: RedisServer, fault: Fault) -> None:
    async with spoilt(redis_server, fault, redis_breaker_pause_ms=LONG_PAUSE_MS) as (proxy, cache, counts):
        assert [await cache.get(key("value")) for _ in range(TRIES)] == [None] * TRIES
        assert counts.lookups == {(Tier.REDIS, Outcome.ERROR): TRIES}
        attempts = proxy.attempts
        assert [await cache.get(key("value")) for _ in range(20)] == [None] * 20
        assert await cache.put(key("other"), body_of(VALUE)) is False
        assert await cache.has_many([key("value")]) == [False]
        assert proxy.attempts == attempts
        assert counts.lookups[Tier.REDIS, Outcome.SKIPPED] == 20
        assert sum(counts.errors.values()) == TRIES
        assert counts.away == {"read": True, "write": True}
        assert counts.flaws == {}  # half a value is a fault, not a bad entry


@pytest.mark.parametrize("fault", FAULTS)
async def test_redis_is_used_again_once_it_is_well(redis_server: RedisServer, fault: Fault) -> None:
    async with spoilt(redis_server, fault, redis_breaker_pause_ms=20) as (proxy, cache, counts):
        for _ in range(TRIES):
            assert await cache.get(key("value")) is None
        proxy.heal()
        await until(lambda: found(cache), what="found again")
        await until(lambda: cache.put(key("after"), body_of(VALUE)), what="written again")
        assert counts.away == {"read": False, "write": False}


async def test_while_it_is_broken_one_request_a_pause_tries(redis_server: RedisServer) -> None:
    async with spoilt(redis_server, Fault.REFUSE, redis_breaker_pause_ms=LONG_PAUSE_MS) as (_, cache, counts):
        assert await asyncio.gather(*(cache.get(key("value")) for _ in range(50))) == [None] * 50
        # All were on their way before the first had failed; none is after that.
        tried = counts.lookups[Tier.REDIS, Outcome.ERROR]
        assert await asyncio.gather(*(cache.get(key("value")) for _ in range(50))) == [None] * 50
        assert counts.lookups[Tier.REDIS, Outcome.ERROR] == tried


async def test_a_full_redis_is_read_and_not_written(fresh_redis: RedisServer) -> None:
    async with (
        redis_cache(fresh_redis, redis_breaker_faults=TRIES, redis_breaker_pause_ms=1000) as (cache, counts),
        raw_client(fresh_redis) as client,
    ):
        await cache.put(key("value"), body_of(VALUE))
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        for _ in range(10):
            assert await cache.put(key("more"), body_of(VALUE)) is False
            assert await found(cache)
        assert counts.writes[Tier.REDIS, Outcome.ERROR] == TRIES
        assert counts.writes[Tier.REDIS, Outcome.SKIPPED] == 10 - TRIES
        assert counts.lookups == {(Tier.REDIS, Outcome.HIT): 10}
        assert counts.away == {"read": False, "write": True}
        await client.config_set("maxmemory", "0")
        await until(lambda: cache.put(key("more"), body_of(VALUE)), what="written again")
        assert counts.away == {"read": False, "write": False}


async def test_the_metrics_show_that_redis_is_left_alone(fresh_redis: RedisServer) -> None:
    reader = InMemoryMetricReader()
    metrics = CacheMetrics(MeterProvider([reader]).get_meter("t"))
    cache = RedisCache.from_settings(cache_settings(fresh_redis.url, redis_breaker_faults=1), recorder=metrics)
    assert gauge(reader) == {"read": 0, "write": 0}, "before anything was asked"
    fresh_redis.kill()
    await cache.get(key("value"))
    assert gauge(reader) == {"read": 1, "write": 1}
    fresh_redis.start()

    async def well() -> bool:
        await cache.get(key("value"))
        await cache.put(key("value"), body_of(VALUE))
        return gauge(reader) == {"read": 0, "write": 0}

    await until(well, what="both closed")
    await cache.aclose()


def gauge(reader: InMemoryMetricReader) -> dict[str, int]:
    """Reads and writes: 1 while they are left alone."""
    data = reader.get_metrics_data()
    assert data is not None
    points = [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.METRIC_REDIS_LEFT_ALONE.name
        for point in metric.data.data_points
    ]
    return {str((point.attributes or {})[names.ATTR_REDIS_ACCESS]): int(point.value) for point in points}


async def test_an_encoder_answers_through_every_fault_and_shares_its_work_again_after_it(redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        settings: dict[str, Any] = {
            "redis_url": proxy.url,
            "redis_timeout_ms": SHORT_MS,
            "redis_breaker_pause_ms": 20,
            "cache_memory_bytes": 0,
        }
        async with running_encoder(**settings) as encoder:
            for number, fault in enumerate(FAULTS):
                proxy.inject(fault, delay_ms=SLOW_MS)
                images = [png(1000 + 10 * number + n) for n in range(3)]
                replies = await asyncio.gather(*(encoder.encode(data) for data in images for _ in range(2)))
                assert {Place(reply.report.place) for reply in replies} <= {Place.ENCODED, Place.SHARED}
                assert all(reply.report.tokens_after == 96 for reply in replies)
                proxy.heal()

                async def remembered(data: bytes = images[0]) -> bool:
                    return Place((await encoder.encode(data)).report.place) is Place.REDIS

                await until(remembered, what=f"in Redis after {fault.value}")


async def test_a_lease_whose_grant_was_lost_on_the_way_is_not_in_the_way(redis_server: RedisServer) -> None:
    """Redis gave the lease and the answer broke off: asked again, it gives it again."""
    async with FaultProxy(redis_server.port) as proxy, raw_client(redis_server) as client:
        settings: dict[str, Any] = {
            "redis_url": proxy.url,
            "redis_timeout_ms": PATIENT_MS,
            "cache_memory_bytes": 0,
            "lease_seconds": 600,
        }
        async with running_encoder(**settings) as encoder:
            await encoder.encode(png(2000))  # connects
            proxy.inject(Fault.DROP, keep_bytes=0, only_answer=2)  # the first one says that there is no entry
            reply = await encoder.encode(png(2001))
            assert Place(reply.report.place) is Place.ENCODED
            assert await client.exists(lease_name(reply.content_key)) == 0
            assert Place((await encoder.encode(png(2001))).report.place) is Place.REDIS
