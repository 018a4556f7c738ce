"""One replica makes an entry, the others wait for it; and nobody waits for the dead."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.trace import INVALID_SPAN

from tests.support.caches import raw_client, redis_cache
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import until_polled
from tests.support.replicas import FOREVER_SECONDS, VALUE, outcomes, replicas
from tests.support.until import until
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import Lease, RedisLeases, Standing, entry_name, lease_name
from vscan.cache.recorder import LeaseOutcome, Outcome, Tier


async def test_of_many_replicas_one_makes_an_entry(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 6) as some:
        turns = await asyncio.gather(*(each.find_or_make(key("new")) for each in some))
        assert sum(each.made for each in some) == 1
        assert [same(turn.hit.value, VALUE) for turn in turns if turn.hit] == [True] * 5
        assert outcomes(some)[LeaseOutcome.LED] == 1
        assert all(not each.counts.errors for each in some)
    async with raw_client(fresh_redis) as client:
        assert await client.keys() == [entry_name(key("new")).encode()]  # no lease is left


async def test_keys_do_not_wait_for_each_other(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 2) as (one, other):
        one.go.clear()
        first = asyncio.create_task(one.find_or_make(key("a")))
        await one.making.wait()
        await other.find_or_make(key("b"))
        assert other.made == 1
        one.go.set()
        await first


async def test_who_waited_is_told_so_and_who_came_later_finds_it(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 3) as (leader, waiter, late):
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("w")))
        await leader.making.wait()
        second = asyncio.create_task(waiter.find_or_make(key("w")))
        await until_polled(fresh_redis)
        leader.go.set()
        await first
        waited = await second
        found = await late.find_or_make(key("w"))
    assert (waited.waited, found.waited) == (True, False)
    assert waiter.counts.leases == {LeaseOutcome.WAITED: 1}
    assert late.counts.leases == {}


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_when_the_leader_gives_up_the_next_one_leads_at_once(fresh_redis: RedisServer, how: str) -> None:
    async with replicas(fresh_redis, 3) as (leader, *waiters):
        leader.error = ValueError("a bad image")
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("g")))
        await leader.making.wait()
        others = [asyncio.create_task(each.find_or_make(key("g"))) for each in waiters]
        await until_polled(fresh_redis)
        if how == "fails":
            leader.go.set()
        else:
            first.cancel()
        with pytest.raises((ValueError, asyncio.CancelledError)):
            await first
        await asyncio.gather(*others)
        assert sum(each.made for each in waiters) == 1
        assert outcomes(waiters) == {LeaseOutcome.TAKEN_OVER: 1, LeaseOutcome.WAITED: 1}


async def test_a_dead_leader_is_replaced_when_its_lease_expires(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 3, lease_seconds=0.3) as (dead, *alive):
        leases = RedisLeases(dead.cache.redis.link, lease_seconds=0.3)  # type: ignore[union-attr]
        assert await leases.join(Lease.of(key("d")), INVALID_SPAN) is Standing.LEADS  # and is never heard of again
        await asyncio.gather(*(each.find_or_make(key("d")) for each in alive))
        assert sum(each.made for each in alive) == 1
        assert outcomes(alive) == {LeaseOutcome.TAKEN_OVER: 1, LeaseOutcome.WAITED: 1}


async def test_a_leader_that_lives_keeps_its_lease_for_longer_than_it_lasts(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 2, lease_seconds=1.5) as (leader, waiter), raw_client(fresh_redis) as client:
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("long")))
        await leader.making.wait()
        second = asyncio.create_task(waiter.find_or_make(key("long")))

        async def renewed() -> bool:
            stats = await client.info("commandstats")
            return bool(stats.get("cmdstat_pexpire", {"calls": 0})["calls"] >= 4)

        await until(renewed, what="renewed four times, each after a third of the lease")
        assert waiter.made == 0
        leader.go.set()
        await asyncio.gather(first, second)
    assert (leader.made, waiter.made) == (1, 0)
    assert leader.counts.leases == {LeaseOutcome.LED: 1}


async def test_who_lost_the_lease_cannot_write_what_another_makes(redis_server: RedisServer) -> None:
    name = key("fenced")
    async with redis_cache(redis_server) as (cache, counts), raw_client(redis_server) as client:
        leases = RedisLeases(cache.link, lease_seconds=FOREVER_SECONDS)
        stale, current = Lease.of(name), Lease.of(name)
        assert await leases.join(stale, INVALID_SPAN) is Standing.LEADS
        await client.delete(lease_name(name))  # as if it had expired
        assert await leases.join(current, INVALID_SPAN) is Standing.LEADS
        assert await leases.renew(stale) is False
        assert await cache.put(name, body_of(make_tokens(8)), stale) is False
        await leases.release(stale)
        assert await leases.join(Lease.of(name), INVALID_SPAN) is Standing.WAITS  # the other's lease is untouched
        assert await cache.put(name, body_of(make_tokens(9)), current)
        assert await cache.put(name, body_of(make_tokens(8)), Lease.of(name)) is False  # nor over what is there
        assert same(await cache.get(name), make_tokens(9))
    assert counts.writes == {(Tier.REDIS, Outcome.REFUSED): 2, (Tier.REDIS, Outcome.OK): 1}


async def test_a_lease_that_redis_forgot_loses_no_work(redis_server: RedisServer) -> None:
    name = key("forgotten")
    async with redis_cache(redis_server) as (cache, _), raw_client(redis_server) as client:
        leases, lease = RedisLeases(cache.link, lease_seconds=FOREVER_SECONDS), Lease.of(name)
        await leases.join(lease, INVALID_SPAN)
        await client.delete(lease_name(name))
        assert await cache.put(name, body_of(VALUE), lease)
        assert same(await cache.get(name), VALUE)


async def test_a_leader_notices_that_its_lease_is_gone_and_goes_on(fresh_redis: RedisServer) -> None:
    name = key("gone")
    async with replicas(fresh_redis, 1, lease_seconds=0.3) as (leader,), raw_client(fresh_redis) as client:
        leader.go.clear()
        task = asyncio.create_task(leader.find_or_make(name))
        await leader.making.wait()
        await client.set(lease_name(name), "another's")
        await until(lambda: leader.counts.leases[LeaseOutcome.LOST] == 1, what="noticed")
        leader.go.set()
        await task
        assert leader.made == 1
        assert leader.counts.writes == {(Tier.MEMORY, Outcome.OK): 1, (Tier.REDIS, Outcome.REFUSED): 1}
        assert await client.get(lease_name(name)) == b"another's"


async def test_who_asks_again_leads_still(redis_server: RedisServer) -> None:
    """The answer to the first question may have been lost on the way."""
    async with redis_cache(redis_server) as (cache, _):
        leases, lease = RedisLeases(cache.link, lease_seconds=FOREVER_SECONDS), Lease.of(key("twice"))
        assert [await leases.join(lease, INVALID_SPAN) for _ in range(2)] == [Standing.LEADS] * 2
        assert await leases.join(Lease.of(key("twice")), INVALID_SPAN) is Standing.WAITS


@pytest.mark.parametrize("what", ["junk", "a list"])
async def test_an_entry_that_cannot_be_read_is_made_anew_once(fresh_redis: RedisServer, what: str) -> None:
    name = entry_name(key("bad"))
    async with replicas(fresh_redis, 4) as some, raw_client(fresh_redis) as client:
        await (client.set(name, b"junk") if what == "junk" else client.lpush(name, "x"))
        turns = await asyncio.gather(*(each.find_or_make(key("bad")) for each in some))
        assert sum(each.made for each in some) == 1
        assert sum(turn.hit is not None for turn in turns) == 3


async def test_without_redis_everyone_makes_its_own(fresh_redis: RedisServer) -> None:
    fresh_redis.kill()
    async with replicas(fresh_redis, 3) as some:
        await asyncio.gather(*(each.find_or_make(key("alone")) for each in some))
        assert [each.made for each in some] == [1, 1, 1]
        assert outcomes(some) == {LeaseOutcome.ALONE: 3}


async def test_redis_dies_while_they_wait(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 3) as (leader, *waiters):
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("dies")))
        await leader.making.wait()
        others = [asyncio.create_task(each.find_or_make(key("dies"))) for each in waiters]
        await until_polled(fresh_redis)
        fresh_redis.kill()
        await asyncio.gather(*others)
        leader.go.set()
        await first
        assert [each.made for each in (leader, *waiters)] == [1, 1, 1]


async def test_redis_comes_back_empty_while_they_wait(fresh_redis: RedisServer) -> None:
    """Two make the entry then; it is written once, and both have it."""
    async with replicas(fresh_redis, 2) as (leader, waiter):
        leader.go.clear()
        first = asyncio.create_task(leader.find_or_make(key("empty")))
        await leader.making.wait()
        second = asyncio.create_task(waiter.find_or_make(key("empty")))
        await until_polled(fresh_redis)
        fresh_redis.restart()
        await second
        leader.go.set()
        await first
        assert (leader.made, waiter.made) == (1, 1)
        writes = leader.counts.writes + waiter.counts.writes
        assert writes[Tier.REDIS, Outcome.OK] == 1


async def test_leases_can_be_turned_off(fresh_redis: RedisServer) -> None:
    async with replicas(fresh_redis, 2, lease_seconds=0) as (one, other), raw_client(fresh_redis) as client:
        one.go.clear()
        first = asyncio.create_task(one.find_or_make(key("off")))
        await one.making.wait()
        await other.find_or_make(key("off"))
        one.go.set()
        await first
        assert "cmdstat_eval" not in await client.info("commandstats")
    assert (one.made, other.made) == (1, 1)
