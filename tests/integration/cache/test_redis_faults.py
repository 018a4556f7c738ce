"""Redis absent, killed, frozen or full costs speed, never an answer; and it is used again when it is back."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.trace import INVALID_SPAN

from tests.support.caches import raw_client, redis_cache
from tests.support.redis_server import RedisServer
from tests.support.replicas import replicas
from tests.support.until import until
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import Lease, RedisLeases, Standing, entry_name, lease_name
from vscan.cache.recorder import Outcome, Tier

BODY = body_of(make_tokens())
SHORT_MS = 100


@pytest.fixture
def absent_redis() -> Iterator[RedisServer]:
    """A Redis that has not been started yet."""
    server = RedisServer()
    yield server
    server.stop()


async def test_absent_at_start_then_picked_up(absent_redis: RedisServer) -> None:
    async with redis_cache(absent_redis) as (cache, counts):
        assert await cache.get(key("a")) is None
        assert await cache.put(key("a"), BODY) is False
        assert await cache.has_many([key("a")]) == [False]
        assert counts.lookups == {(Tier.REDIS, Outcome.ERROR): 1}
        assert counts.writes == {(Tier.REDIS, Outcome.ERROR): 1}
        absent_redis.start()
        await until(lambda: cache.put(key("a"), BODY), what="Redis picked up")
        assert same(await cache.get(key("a")), make_tokens())


async def test_killed_and_back_again(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis, redis_breaker_pause_ms=1000) as (cache, counts):
        assert await cache.put(key("a"), BODY)
        fresh_redis.kill()
        for _ in range(6):
            assert await cache.get(key("a")) is None
        assert counts.lookups[Tier.REDIS, Outcome.SKIPPED] > 0  # the breaker opened
        assert counts.lookups[Tier.REDIS, Outcome.ERROR] >= 3
        fresh_redis.start()
        await until(lambda: cache.put(key("a"), BODY), what="Redis picked up")
        assert same(await cache.get(key("a")), make_tokens())


async def test_a_restart_between_requests_is_no_fault(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis) as (cache, counts):
        # Several pooled connections, all of which the restart breaks.
        await asyncio.gather(*(cache.put(key(str(n)), BODY) for n in range(8)))
        fresh_redis.restart()
        assert await asyncio.gather(*(cache.get(key(str(n))) for n in range(8))) == [None] * 8
        assert all(await asyncio.gather(*(cache.put(key(str(n)), BODY) for n in range(8))))
    assert counts.errors == {}


async def test_frozen_it_is_left_alone_after_some_faults_and_used_again(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis, redis_timeout_ms=SHORT_MS, redis_breaker_pause_ms=2000) as (cache, counts):
        await until(lambda: cache.put(key("a"), BODY))
        counts.lookups.clear()
        counts.errors.clear()
        fresh_redis.pause()
        assert [await cache.get(key("a")) for _ in range(5)] == [None] * 5
        assert counts.lookups == {(Tier.REDIS, Outcome.ERROR): 3, (Tier.REDIS, Outcome.SKIPPED): 2}
        assert counts.errors == {("get", "TimeoutError"): 3}
        fresh_redis.resume()

        async def found() -> bool:
            return same(await cache.get(key("a")), make_tokens())

        await until(found, what="the value found again")


async def test_full_it_refuses_writes_and_still_answers_reads(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis) as (cache, counts), raw_client(fresh_redis) as client:
        await cache.put(key("small"), BODY)
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        assert await cache.put(key("more"), BODY) is False
        assert same(await cache.get(key("small")), make_tokens())
    assert list(counts.errors.values()) == [1]
    assert counts.writes[Tier.REDIS, Outcome.ERROR] == 1


async def test_more_requests_than_connections_all_get_through(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server, redis_connections=2) as (cache, counts):
        assert all(await asyncio.gather(*(cache.put(key(f"many {n}"), body_of(make_tokens(n))) for n in range(40))))
        values = await asyncio.gather(*(cache.get(key(f"many {n}")) for n in range(40)))
    assert all(same(value, make_tokens(n)) for n, value in enumerate(values))
    assert counts.errors == {}


async def test_cancelled_requests_neither_leak_connections_nor_mix_answers(redis_server: RedisServer) -> None:
    chance = random.Random(5)
    async with redis_cache(redis_server, redis_connections=2) as (cache, counts):
        for n in range(10):
            await cache.put(key(f"cancel {n}"), body_of(make_tokens(n)))
        tasks = [asyncio.create_task(cache.get(key(f"cancel {n % 10}"))) for n in range(200)]
        for task in tasks:
            if chance.random() < 0.5:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)  # some are cancelled in the queue, some while they talk to Redis
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        completed = [(n, answer) for n, answer in enumerate(answers) if not isinstance(answer, BaseException)]
        assert 0 < len(completed) < len(answers)
        assert all(same(answer, make_tokens(n % 10)) for n, answer in completed)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers if isinstance(answer, BaseException))
        # Afterwards both connections still serve.
        values = await asyncio.gather(*(cache.get(key(f"cancel {n}")) for n in range(10)))
    assert all(same(value, make_tokens(n)) for n, value in enumerate(values))
    assert counts.flaws == {}


async def test_a_user_of_the_page_may_do_all_that_is_done(fresh_redis: RedisServer, tmp_path: Path) -> None:
    """The line that docs/cache.md gives for a user who may do nothing else."""
    page = (Path(__file__).parents[3] / "docs" / "cache.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER vscan .*$", page, re.MULTILINE)
    async with raw_client(fresh_redis) as client:
        await client.execute_command(*line.split())
    (tmp_path / "password").write_text("PASSWORD")
    url = f"redis://vscan@127.0.0.1:{fresh_redis.port}/0"
    login = {"redis_url": url, "redis_password_file": tmp_path / "password"}
    async with raw_client(fresh_redis) as client, replicas(fresh_redis, 3, lease_seconds=0.3, **login) as some:
        await client.set(entry_name(key("junk")), b"junk")
        await client.set(lease_name(key("held")), "another's")
        for name in ("junk", "held", "new"):
            await asyncio.gather(*(each.find_or_make(key(name)) for each in some))
        some[0].error = ValueError("a bad image")
        with pytest.raises(ValueError, match="a bad image"):
            await some[0].find_or_make(key("given back"))
        leases, lease = RedisLeases(some[0].cache.redis.link, lease_seconds=600), Lease.of(key("renewed"))  # type: ignore[union-attr]
        assert await leases.join(lease, INVALID_SPAN) is Standing.LEADS
        assert await leases.renew(lease)
        assert await some[0].cache.locate(key("new")) is not None
        assert await some[0].cache.locate(key("nowhere")) is None
    assert [each.counts.errors for each in some] == [{}] * 3


async def test_a_password_from_a_file_and_a_user_in_the_url(fresh_redis: RedisServer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    async with raw_client(fresh_redis) as client:
        await client.acl_setuser("vscan", enabled=True, passwords=["+s3cret"], keys=["vscan:*"], commands=["+@all"])
        await client.acl_setuser("default", enabled=False)
    url = f"redis://vscan@127.0.0.1:{fresh_redis.port}/0"
    async with redis_cache(fresh_redis, redis_url=url, redis_password_file=password) as (cache, counts):
        assert await cache.put(key("acl"), BODY)
        assert same(await cache.get(key("acl")), make_tokens())
        assert counts.errors == {}
    password.write_text("wrong\n")
    async with redis_cache(fresh_redis, redis_url=url, redis_password_file=password) as (cache, counts):
        assert await cache.get(key("acl")) is None
        assert counts.lookups == {(Tier.REDIS, Outcome.ERROR): 1}
