"""Each Redis operation is a span that says how it went and never which image it was about."""

from __future__ import annotations

import asyncio
import json

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from encoder_service.cache.replica_turns import ReplicaTurns
from tests.support.caches import raw_client, redis_cache, tiered_cache
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import until_polled
from tests.support.visual_values import body_of, key, make_tokens
from vscan.cache.redis import KEY_PREFIX
from vscan.telemetry import names


def recording() -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def spans_of_some_operations(server: RedisServer) -> tuple[ReadableSpan, ...]:
    provider, exporter = recording()
    tracer = provider.get_tracer("test")
    async with redis_cache(server, tracer=tracer) as (cache, _), raw_client(server) as client:
        with tracer.start_as_current_span("caller"):
            await cache.get(key("span"))
            await cache.put(key("span"), body_of(make_tokens()))
            await cache.get_many([key("span"), key("no span")])
            await client.set(KEY_PREFIX + key("bad span").hex(), b"junk")
            await cache.get(key("bad span"))
            await cache.has_many([key("span")])
    return tuple(exporter.get_finished_spans())


async def test_operations_are_siblings_under_their_caller(redis_server: RedisServer) -> None:
    *operations, caller = await spans_of_some_operations(redis_server)
    assert [span.name for span in operations] == [
        names.SPAN_REDIS_GET,
        names.SPAN_REDIS_SET,
        names.SPAN_REDIS_GET,
        names.SPAN_REDIS_GET,
        names.SPAN_REDIS_DELETE,
        names.SPAN_REDIS_EXISTS,
    ]
    assert caller.context is not None
    assert {span.parent.span_id for span in operations if span.parent} == {caller.context.span_id}


async def test_attributes_say_how_it_went(redis_server: RedisServer) -> None:
    _, put, some, *_ = await spans_of_some_operations(redis_server)
    assert put.attributes is not None
    assert some.attributes is not None
    assert put.attributes[names.ATTR_DB_SYSTEM] == "redis"
    assert put.attributes[names.ATTR_CACHE_BYTES] == some.attributes[names.ATTR_CACHE_BYTES]
    assert (some.attributes[names.ATTR_CACHE_ENTRIES], some.attributes[names.ATTR_CACHE_HIT]) == (2, False)


async def test_no_span_holds_a_key(redis_server: RedisServer) -> None:
    told = json.dumps([json.loads(span.to_json()) for span in await spans_of_some_operations(redis_server)])
    assert not [name for name in ("span", "no span", "bad span") if key(name).hex()[:16] in told]


async def test_a_turn_is_one_span_with_its_outcome(fresh_redis: RedisServer) -> None:
    provider, exporter = recording()
    tracer = provider.get_tracer("test")
    async with tiered_cache(fresh_redis) as (cache, _), tiered_cache(fresh_redis) as (other, _):
        leader, waiter = (ReplicaTurns.of(each, lease_seconds=600, tracer=tracer) for each in (cache, other))

        async def wait() -> None:
            async with waiter.turn(key("turn")) as turn:
                assert turn.waited

        async with leader.turn(key("turn")) as turn:
            waiting = asyncio.create_task(wait())
            await until_polled(fresh_redis)
            await cache.put(key("turn"), make_tokens(), lease=turn.lease)
        await waiting
    first, second = ((span.name, span.attributes or {}) for span in exporter.get_finished_spans())
    assert (first[0], second[0]) == (names.SPAN_REDIS_LEASE, names.SPAN_REDIS_LEASE)
    assert (first[1][names.ATTR_LEASE_OUTCOME], first[1][names.ATTR_LEASE_POLLS]) == ("led", 1)
    assert second[1][names.ATTR_LEASE_OUTCOME] == "waited"
    assert int(str(second[1][names.ATTR_LEASE_POLLS])) > 1


async def test_a_fault_is_on_the_span(fresh_redis: RedisServer) -> None:
    provider, exporter = recording()
    fresh_redis.kill()
    async with redis_cache(fresh_redis, tracer=provider.get_tracer("test"), redis_breaker_faults=1) as (cache, _):
        await cache.get(key("fault"))
        await cache.get(key("fault"))
    first, second = (span.attributes or {} for span in exporter.get_finished_spans())
    assert (first[names.ATTR_CACHE_RESULT], first[names.ATTR_ERROR_TYPE]) == ("error", "ConnectionError")
    assert second[names.ATTR_CACHE_RESULT] == "skipped"
