"""Questions through decoder and encoder while Redis is broken: answered, with few attempts on it, and all of it to be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.integration.encoder.test_trace import Watched
from tests.support.asking import PICTURE, Reply, ask, chat, decoder_stub
from tests.support.caches import PATIENT_MS, raw_client
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.redis_server import RedisServer
from tests.support.redis_topologies import WatchedRedis, running
from tests.support.stack import in_process_stack
from tests.support.until import until
from vscan.telemetry import names

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
SLOW_MS = 500.0
SHORT_MS = 200  # the deadline where one must pass
FAULTS_IN_A_ROW = 3  # after which Redis is left alone
LONG_PAUSE_MS = 3_600_000


@dataclass
class Asker:
    """Asks about one picture; each budget makes other tokens of it, so that it is new again."""

    stub: Any
    decoder: Watched
    encoder: Watched
    budgets: Any = field(default_factory=lambda: count(10))

    async def about(self, budget: int) -> Reply:
        """The answer with so many visual tokens."""
        request = chat(PICTURE, "w1")
        request.reduction.budget.tokens_per_tile = budget
        return await ask(self.stub, request)

    async def new(self) -> Reply:
        """The answer about what no cache has."""
        return await self.about(next(self.budgets))

    async def remembered(self) -> bool:
        """Whether Redis takes and gives again."""
        budget = next(self.budgets)
        return [(await self.about(budget)).places for _ in range(2)] == [["ENCODED"], ["REDIS"]]


@asynccontextmanager
async def asker(redis_url: str, timeout_ms: int = PATIENT_MS, pause_ms: int = 20) -> AsyncIterator[Asker]:
    """In front of both services, neither of which has a memory tier."""
    watched = Watched(), Watched()
    settings: dict[str, Any] = {
        "redis_url": redis_url,
        "redis_timeout_ms": timeout_ms,
        "redis_breaker_pause_ms": pause_ms,
        "redis_breaker_faults": FAULTS_IN_A_ROW,
        "cache_memory_bytes": 0,
        "cache_allow_unsigned": True,
    }
    of_encoder, of_decoder = (each.telemetry for each in watched)
    async with (
        in_process_stack(encoder=settings, decoder=settings, telemetry=(of_encoder, of_decoder)) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        yield Asker(stub, watched[1], watched[0])


def told(watched: Watched, metric: names.Metric, *by: str) -> dict[tuple[str, ...], int]:
    """A metric's values, by the values of some attributes."""
    values: dict[tuple[str, ...], int] = {}
    for point in watched.metrics().get(metric.name, []):
        labels = tuple(str(point.attributes[name]) for name in by)
        values[labels] = values.get(labels, 0) + int(point.value)
    return values


def results(watched: Watched, *spans: str) -> set[str]:
    """What the spans of some names say of Redis."""
    return {str((span.attributes or {}).get(names.ATTR_CACHE_RESULT)) for name in spans for span in watched.spans(name)}


WRITES = (names.SPAN_REDIS_LEASE, names.SPAN_REDIS_SET)


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_some_attempts_questions_go_on_without_redis(redis_server: RedisServer, fault: Fault) -> None:
    silent = fault in (Fault.SLOW, Fault.BLACK_HOLE)
    async with (
        FaultProxy(redis_server.port) as proxy,
        asker(proxy.url, SHORT_MS if silent else PATIENT_MS, LONG_PAUSE_MS) as asking,
    ):
        proxy.inject(fault, delay_ms=SLOW_MS, keep_bytes=1)
        for _ in range(FAULTS_IN_A_ROW):
            assert (await asking.new()).places == ["ENCODED"]
        attempts = proxy.attempts
        for each in (asking.encoder, asking.decoder):
            each.clear()
        for _ in range(5):
            assert (await asking.new()).places == ["ENCODED"]
        assert proxy.attempts == attempts
        await until(lambda: len(asking.encoder.spans("encode")) == 5, what="the spans ended")
        # What an owner sees of the five: in traces, and in metrics.
        assert results(asking.decoder, names.SPAN_REDIS_GET) == {"skipped"}
        assert results(asking.encoder, names.SPAN_REDIS_GET, *WRITES) == {"skipped"}
        for each in (asking.encoder, asking.decoder):
            assert told(each, names.METRIC_REDIS_LEFT_ALONE, names.ATTR_REDIS_ACCESS) == {("read",): 1, ("write",): 1}
            assert sum(told(each, names.METRIC_REDIS_ERRORS).values()) == FAULTS_IN_A_ROW
        lookups = told(asking.decoder, names.METRIC_CACHE_LOOKUPS, names.ATTR_CACHE_TIER, names.ATTR_CACHE_RESULT)
        assert (lookups["redis", "error"], lookups["redis", "skipped"]) == (FAULTS_IN_A_ROW, 5)


@pytest.mark.parametrize("fault", FAULTS)
async def test_questions_use_redis_again_once_it_is_well(redis_server: RedisServer, fault: Fault) -> None:
    async with FaultProxy(redis_server.port) as proxy, asker(proxy.url, 2 * SHORT_MS) as asking:
        proxy.inject(fault, delay_ms=SLOW_MS, keep_bytes=1)
        assert (await asking.new()).places == ["ENCODED"]
        assert "error" in results(asking.decoder, names.SPAN_REDIS_GET)
        assert "error" in results(asking.encoder, names.SPAN_REDIS_GET, *WRITES)
        proxy.heal()
        await until(asking.remembered, what="written by one service and read by the other")
        for each in (asking.encoder, asking.decoder):
            assert 1 not in told(each, names.METRIC_REDIS_LEFT_ALONE, names.ATTR_REDIS_ACCESS).values()


async def test_of_a_full_redis_questions_use_what_is_there(fresh_redis: RedisServer) -> None:
    async with asker(fresh_redis.url, pause_ms=LONG_PAUSE_MS) as asking, raw_client(fresh_redis) as client:
        assert (await asking.about(9)).places == ["ENCODED"]
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        for _ in range(5):
            assert (await asking.new()).places == ["ENCODED"]
            assert (await asking.about(9)).places == ["REDIS"]
        errors = told(asking.encoder, names.METRIC_REDIS_ERRORS, names.ATTR_ERROR_TYPE)
        assert sum(errors.values()) == FAULTS_IN_A_ROW
        assert errors.keys() <= {("OutOfMemoryError",), ("ResponseError",)}  # the latter of a script, from Redis 6
        writes = told(asking.encoder, names.METRIC_CACHE_WRITES, names.ATTR_CACHE_TIER, names.ATTR_CACHE_RESULT)
        assert (writes["redis", "ok"], writes["redis", "error"] + writes["redis", "skipped"]) == (1, 5)
        for each, access in ((asking.encoder, {("read",): 0, ("write",): 1}), (asking.decoder, {("read",): 0, ("write",): 0})):
            assert told(each, names.METRIC_REDIS_LEFT_ALONE, names.ATTR_REDIS_ACCESS) == access
        assert told(asking.decoder, names.METRIC_REDIS_ERRORS) == {}


async def test_questions_go_on_while_redis_is_restarted_empty(fresh_redis: RedisServer) -> None:
    async with asker(fresh_redis.url) as asking:
        assert await asking.remembered()
        fresh_redis.restart()
        assert await asking.remembered()


async def test_questions_go_on_through_a_failover(tmp_path: Path) -> None:
    watched = WatchedRedis(tmp_path)
    with running(watched):
        async with asker(watched.url) as asking:
            assert await asking.remembered()
            watched.master.kill()
            while not watched.promoted():
                assert (await asking.new()).places == ["ENCODED"]
            await until(asking.remembered, what="the new master used")
