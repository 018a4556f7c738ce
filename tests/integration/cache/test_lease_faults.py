"""Whatever becomes of a lease's holder, of Redis or of its clock: nobody waits for longer than a lease lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from encoder_service.cache import replica_turns
from tests.support.caches import raw_client
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import until_polled
from tests.support.redis_topologies import WatchedRedis, running
from tests.support.replicas import Replica, outcomes, replicas
from tests.support.until import until
from tests.support.visual_values import key
from vscan.cache.lease import entry_name, lease_name
from vscan.cache.recorder import LeaseOutcome, Outcome, Tier
from vscan.cache.tiers import CacheHit

BAD = ValueError("a bad image")


@asynccontextmanager
async def behind_slow_answers(
    server: RedisServer, timeout_ms: int, delay_ms: float = 300
) -> AsyncIterator[tuple[Replica, FaultProxy]]:
    """One replica, connected, whose answers from Redis come late from now on."""
    async with (
        FaultProxy(server.port) as proxy,
        replicas(server, 1, redis_url=proxy.url, redis_timeout_ms=timeout_ms) as (one,),
    ):
        await until(one.cache.redis.link.client.redis.ping, what="connected")  # type: ignore[union-attr]
        proxy.inject(Fault.SLOW, delay_ms=delay_ms)
        yield one, proxy


async def test_who_is_cancelled_while_it_asks_leaves_no_lease(fresh_redis: RedisServer) -> None:
    name = lease_name(key("cancelled"))
    async with raw_client(fresh_redis) as client, behind_slow_answers(fresh_redis, timeout_ms=30_000) as (one, _):

        async def leased() -> bool:
            return bool(await client.exists(name))

        task = asyncio.create_task(one.find_or_make(key("cancelled")))
        await until(leased, what="the lease given")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one.made == 0  # the answer had not come
        assert not await leased()


async def test_who_did_not_hear_of_its_lease_and_fails_gives_it_back(fresh_redis: RedisServer) -> None:
    name = lease_name(key("unheard"))
    slow = behind_slow_answers(fresh_redis, timeout_ms=1_000, delay_ms=60_000)
    async with raw_client(fresh_redis) as client, slow as (one, proxy):

        async def fail() -> None:
            async with one.turns.turn(key("unheard")):
                assert one.counts.leases == {LeaseOutcome.ALONE: 1}
                assert await client.exists(name) == 1
                proxy.heal()
                raise BAD

        with pytest.raises(ValueError, match="a bad image"):
            await fail()
        assert await client.exists(name) == 0


@pytest.mark.parametrize("expiry_seconds", [None, 3600], ids=["without an end", "of an hour"])
async def test_a_lease_that_outlasts_every_holder_is_cut(fresh_redis: RedisServer, expiry_seconds: int | None) -> None:
    """As one does whose holder died before the clock of Redis was put back."""
    async with raw_client(fresh_redis) as client, replicas(fresh_redis, 3, lease_seconds=0.5) as some:
        await client.set(lease_name(key("long")), "a dead one's", ex=expiry_seconds)
        await asyncio.gather(*(each.find_or_make(key("long")) for each in some))
        assert sum(each.made for each in some) == 1
        assert outcomes(some) == {LeaseOutcome.TAKEN_OVER: 1, LeaseOutcome.WAITED: 2}


async def test_what_was_made_anew_meanwhile_is_not_made_again(
    fresh_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sees what cannot be read, and gets the turn only after another one has made it anew."""
    name, reads = key("overtaken"), 0
    async with replicas(fresh_redis, 2, cache_memory_bytes=0) as (quick, late), raw_client(fresh_redis) as client:
        await client.lpush(entry_name(name), "no entry")
        read = late.cache.get

        async def read_and_be_overtaken(content_key: bytes) -> CacheHit | None:
            nonlocal reads
            reads += 1
            hit = await read(content_key)
            if reads == 2:
                await quick.find_or_make(name)
            return hit

        monkeypatch.setattr(late.cache, "get", read_and_be_overtaken)
        assert (await late.find_or_make(name)).hit is not None
        assert (quick.made, late.made) == (1, 0)
        assert await client.exists(lease_name(name)) == 0


async def test_waiting_makes_no_lease_shorter_or_longer(fresh_redis: RedisServer) -> None:
    async with raw_client(fresh_redis) as client, replicas(fresh_redis, 2) as (leader, waiter):
        leader.go.clear()
        tasks = [asyncio.create_task(leader.find_or_make(key("w")))]
        await leader.making.wait()
        await client.pexpire(lease_name(key("w")), 300_000)
        tasks.append(asyncio.create_task(waiter.find_or_make(key("w"))))
        await until_polled(fresh_redis)
        assert 200_000 < await client.pttl(lease_name(key("w"))) <= 300_000
        leader.go.set()
        await asyncio.gather(*tasks)


async def test_a_leader_that_hangs_is_replaced_in_the_end(fresh_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives and renews, but not for ever."""
    monkeypatch.setattr(replica_turns, "_MOST_RENEWALS", 2)
    async with replicas(fresh_redis, 2, lease_seconds=0.3) as (hanging, other):
        hanging.go.clear()
        first = asyncio.create_task(hanging.find_or_make(key("hangs")))
        await hanging.making.wait()
        await other.find_or_make(key("hangs"))
        assert other.counts.leases == {LeaseOutcome.TAKEN_OVER: 1}
        hanging.go.set()
        await first
        assert hanging.counts.writes[Tier.REDIS, Outcome.REFUSED] == 1


async def test_a_waiter_that_leaves_disturbs_nobody(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 3) as (leader, leaving, staying), raw_client(fresh_redis) as client:
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("l")))
        await leader.making.wait()
        gone, last = (asyncio.create_task(each.find_or_make(key("l"))) for each in (leaving, staying))
        await until_polled(fresh_redis)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await client.exists(lease_name(key("l"))) == 1
        leader.go.set()
        await asyncio.gather(first, last)
        assert [each.made for each in (leader, leaving, staying)] == [1, 0, 0]


async def test_an_error_is_found_out_by_each_and_holds_nobody_up(fresh_redis: RedisServer) -> None:
    """Errors are not shared among replicas: one that is full says nothing of another one."""
    async with replicas(fresh_redis, 4) as some, raw_client(fresh_redis) as client:
        for each in some:
            each.error = BAD
        ended = await asyncio.gather(*(each.find_or_make(key("bad")) for each in some), return_exceptions=True)
        assert ended == [BAD] * 4
        assert await client.keys() == []


def test_those_who_wait_ask_ever_less_often_and_not_in_step() -> None:
    """In the long run ten to twenty times a second, each replica for each image that it waits for."""
    one, other = (list(islice(replica_turns._pauses(), 200)) for _ in "ab")
    assert one != other
    assert max(one[:1]) <= 0.004
    assert all(0.05 <= pause <= 0.1 for pause in one[10:])


async def test_a_failover_while_one_encodes_costs_a_second_encoding_at_most(tmp_path: Path) -> None:
    """The master dies with the lease; nobody fails or waits for ever, and the entry is in the new master in the end."""
    watched, name = WatchedRedis(tmp_path), key("failover")
    with running(watched):
        async with replicas(watched.master, 2, redis_url=watched.url, cache_memory_bytes=0) as (leader, waiter):
            leader.go.clear()
            first = asyncio.create_task(leader.find_or_make(name))
            await leader.making.wait()
            await until(lambda: watched.replicated(lease_name(name)), what="the lease replicated")
            second = asyncio.create_task(waiter.find_or_make(name))
            await until_polled(watched.master)
            watched.master.kill()
            await until(watched.promoted, what="the replica promoted")
            leader.go.set()
            await asyncio.gather(first, second)
            assert 1 <= leader.made + waiter.made <= 2

            async def found() -> bool:
                return (await waiter.find_or_make(name)).hit is not None

            await until(found, what="the entry in the new master")
            assert watched.replicated(entry_name(name))
