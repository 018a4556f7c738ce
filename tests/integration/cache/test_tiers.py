"""Memory before Redis: what is found in one is in the other from then on, and each lookup is counted."""

from __future__ import annotations

import pytest

from tests.support.caches import raw_client, tiered_cache
from tests.support.redis_server import RedisServer
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.place import Place
from vscan.cache.recorder import Outcome, Tier
from vscan.cache.redis import KEY_PREFIX

VALUE = make_tokens(9)
MEMORY_MISS, MEMORY_HIT = (Tier.MEMORY, Outcome.MISS), (Tier.MEMORY, Outcome.HIT)
REDIS_MISS, REDIS_HIT = (Tier.REDIS, Outcome.MISS), (Tier.REDIS, Outcome.HIT)


async def test_put_goes_to_both_tiers(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (writer, counts), tiered_cache(redis_server) as (other, _):
        await writer.put(key("both"), VALUE)
        here, there = await writer.get(key("both")), await other.get(key("both"))
    assert here is not None
    assert there is not None
    assert (here.place, there.place) == (Place.MEMORY, Place.REDIS)
    assert same(there.value, VALUE)
    assert counts.writes == {(Tier.MEMORY, Outcome.OK): 1, (Tier.REDIS, Outcome.OK): 1}
    assert counts.memory[0] == 1
    assert counts.memory[1] > VALUE.nbytes


async def test_the_body_that_the_caller_has_is_what_is_written(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (writer, _), tiered_cache(redis_server) as (other, _):
        await writer.put(key("body"), VALUE, body_of(VALUE))
        hit = await other.get(key("body"))
    assert hit is not None
    assert same(hit.value, VALUE)


async def test_what_redis_had_is_in_memory_from_then_on(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (writer, _), tiered_cache(redis_server) as (reader, counts):
        await writer.put(key("fill"), VALUE)
        places = [hit.place for hit in [await reader.get(key("fill")) for _ in range(3)] if hit]
    assert places == [Place.REDIS, Place.MEMORY, Place.MEMORY]
    assert counts.lookups == {MEMORY_MISS: 1, REDIS_HIT: 1, MEMORY_HIT: 2}


async def test_only_what_memory_lacks_is_asked_of_redis(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (writer, _), tiered_cache(redis_server) as (reader, counts):
        for name in ("mixed a", "mixed b"):
            await writer.put(key(name), VALUE)
        await reader.get(key("mixed a"))
        counts.lookups.clear()
        hits = await reader.get_many([key(name) for name in ("mixed b", "mixed a", "mixed none", "mixed b")])
    assert [hit.place if hit else None for hit in hits] == [Place.REDIS, Place.MEMORY, None, Place.REDIS]
    assert counts.lookups == {MEMORY_MISS: 2, MEMORY_HIT: 1, REDIS_HIT: 1, REDIS_MISS: 1}


async def test_remembering_does_not_write_to_redis(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (cache, _), raw_client(redis_server) as client:
        cache.remember(key("remembered"), VALUE)
        hit = await cache.get(key("remembered"))
        assert hit is not None
        assert hit.place is Place.MEMORY
        assert await client.exists(KEY_PREFIX + key("remembered").hex()) == 0


async def test_locating_moves_and_counts_nothing(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server) as (writer, _), tiered_cache(redis_server) as (reader, counts):
        await writer.put(key("locate"), VALUE)
        assert await writer.locate(key("locate")) is Place.MEMORY
        assert [await reader.locate(key("locate")) for _ in range(2)] == [Place.REDIS] * 2
        assert await reader.locate_many([key("nowhere"), key("locate")]) == [None, Place.REDIS]
        assert counts.lookups == {}
        hit = await reader.get(key("locate"))
        assert hit is not None
        assert hit.place is Place.REDIS


async def test_without_redis_memory_works_alone() -> None:
    async with tiered_cache(None) as (cache, counts):
        assert await cache.get(key("alone")) is None
        await cache.put(key("alone"), VALUE)
        hit = await cache.get(key("alone"))
        assert hit is not None
        assert hit.place is Place.MEMORY
        assert await cache.locate_many([key("alone"), key("nowhere")]) == [Place.MEMORY, None]
    assert counts.lookups == {MEMORY_MISS: 1, MEMORY_HIT: 1}


async def test_without_memory_redis_works_alone(redis_server: RedisServer) -> None:
    async with tiered_cache(redis_server, cache_memory_bytes=0) as (cache, counts):
        await cache.put(key("no memory"), VALUE)
        places = [hit.place for hit in [await cache.get(key("no memory")) for _ in range(2)] if hit]
    assert places == [Place.REDIS] * 2
    assert counts.lookups == {MEMORY_MISS: 2, REDIS_HIT: 2}


async def test_redis_dead_memory_goes_on(fresh_redis: RedisServer) -> None:
    async with tiered_cache(fresh_redis) as (cache, _):
        await cache.put(key("before"), VALUE)
        fresh_redis.kill()
        await cache.put(key("after"), VALUE)
        hits = await cache.get_many([key("before"), key("after"), key("never")])
    assert [hit.place if hit else None for hit in hits] == [Place.MEMORY, Place.MEMORY, None]


async def test_it_is_known_before_the_first_request_that_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="vscan.cache"):
        server = RedisServer()  # not started
        async with tiered_cache(server, redis_breaker_pause_ms=600_000) as (cache, counts):
            await cache.decide()
            faults = sum(counts.errors.values())
            assert faults == 3  # as many as the breaker takes
            assert await cache.get(key("any")) is None
            assert sum(counts.errors.values()) == faults  # nobody waits for it
    assert "Redis does not answer: going on without it until it does" in caplog.messages


async def test_it_is_known_before_the_first_request_that_redis_answers(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="vscan.cache"):
        async with tiered_cache(redis_server) as (cache, counts):
            await cache.decide()
    assert "Redis answers" in caplog.messages
    assert counts.errors == {}
