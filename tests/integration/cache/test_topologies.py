"""The cache and its leases over a master that Sentinels name, and over a Cluster, as over one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from opentelemetry.trace import INVALID_SPAN
from redis.asyncio import Redis
from redis.crc import key_slot

from tests.support.caches import open_cache
from tests.support.redis_topologies import RedisClusterServers, WatchedRedis, running
from tests.support.until import until
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import Lease, RedisLeases, Standing, entry_name, lease_name
from vscan.cache.recorder import Outcome, Tier

# Their servers name others: only a secret, or a word, lets an encoder trust what comes from there.
UNSIGNED = {"cache_allow_unsigned": True}
MANY = [key(f"many {n}") for n in range(24)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers(tmp_path_factory.mktemp("cluster"))
    with running(servers):
        yield servers


async def test_a_cluster_keeps_and_finds_entries_on_all_its_nodes(cluster: RedisClusterServers) -> None:
    async with open_cache(cluster.url, **UNSIGNED) as (writer, _), open_cache(cluster.url, **UNSIGNED) as (reader, counts):
        for n, name in enumerate(MANY):
            assert await writer.put(name, body_of(make_tokens(n)))
        assert len({key_slot(entry_name(name).encode()) * 3 // 16_384 for name in MANY}) == 3
        found = await reader.get_many([*MANY, key("nowhere")])
        assert await reader.has_many([key("nowhere"), *MANY]) == [False] + [True] * len(MANY)
    assert [same(value, make_tokens(n)) for n, value in enumerate(found[:-1])] == [True] * len(MANY)
    assert found[-1] is None
    assert counts.errors == {}


async def test_a_cluster_is_asked_once_a_node(cluster: RedisClusterServers) -> None:
    """Counted where no replica asks beside: each node hears of all its entries in one piece."""
    async with open_cache(cluster.url, **UNSIGNED) as (cache, _), AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Redis(port=node.port)) for node in cluster.nodes[1:3]]
        for ask in (cache.get_many, cache.has_many):
            await ask(MANY)  # connects
            before = [(await node.info("stats"))["total_reads_processed"] for node in nodes]
            await ask(MANY)
            after = [(await node.info("stats"))["total_reads_processed"] for node in nodes]
            assert [later - earlier for earlier, later in zip(before, after, strict=True)] == [2, 2]  # and the question itself


async def test_many_ask_a_cluster_at_once(cluster: RedisClusterServers) -> None:
    async with open_cache(cluster.url, redis_connections=1, **UNSIGNED) as (cache, counts):
        values = await asyncio.gather(*(cache.get_many(MANY) for _ in range(8)))
        assert all(len(each) == len(MANY) for each in values)
    assert counts.errors == {}


async def test_bad_entries_of_a_cluster_are_deleted_wherever_they_are(cluster: RedisClusterServers) -> None:
    bad = [key(f"bad {n}") for n in range(8)]
    async with open_cache(cluster.url, **UNSIGNED) as (cache, counts):
        for name in bad:
            await cache.link.client.set(entry_name(name), b"junk", ttl_seconds=100)
        assert await cache.get_many(bad) == [None] * len(bad)
        assert await cache.has_many(bad) == [False] * len(bad)
    assert counts.lookups[Tier.REDIS, Outcome.BAD_ENTRY] == len(bad)


def test_a_lease_lies_where_its_entry_lies() -> None:
    assert all(key_slot(lease_name(name).encode()) == key_slot(entry_name(name).encode()) for name in MANY)


async def test_leases_work_in_a_cluster(cluster: RedisClusterServers) -> None:
    async with open_cache(cluster.url, **UNSIGNED) as (cache, counts):
        leases = RedisLeases(cache.link, lease_seconds=600)
        for name in MANY[:6]:
            await cache.link.client.unlink([entry_name(name)])
            mine, other = Lease.of(name), Lease.of(name)
            assert await leases.join(mine, INVALID_SPAN) is Standing.LEADS
            assert await leases.join(other, INVALID_SPAN) is Standing.WAITS
            assert not await cache.put(name, body_of(make_tokens(1)), other)
            assert await leases.renew(mine)
            assert await cache.put(name, body_of(make_tokens(2)), mine)
            assert await leases.join(other, INVALID_SPAN) is Standing.FOUND
            assert same(await cache.get(name), make_tokens(2))
    assert counts.errors == {}


async def test_what_is_no_string_counts_as_none_and_hides_nothing_beside_it(cluster: RedisClusterServers) -> None:
    async with open_cache(cluster.url, **UNSIGNED) as (cache, counts):
        for n, name in enumerate(MANY):
            await cache.link.client.unlink([entry_name(name)])
            await (cache.link.client.redis.lpush(entry_name(name), "x") if n % 2 else cache.put(name, body_of(make_tokens(n))))
        found = await cache.get_many(MANY)
        assert [value is not None for value in found] == [n % 2 == 0 for n in range(len(MANY))]
        assert await cache.get(MANY[1]) is None
    assert counts.errors == {}


async def test_a_failover_within_a_cluster_is_followed(cluster: RedisClusterServers) -> None:
    """The last test of the Cluster: it does not come back whole. No connection is left open."""
    async with open_cache(cluster.url, **UNSIGNED) as (cache, _):
        for name in MANY:
            await cache.put(name, body_of(make_tokens(3)))
        await until(cluster.replicated, what="replicated")
        cluster.nodes[0].kill()
        assert len(await cache.get_many(MANY)) == len(MANY)  # whatever is found: nothing is raised

        async def all_found() -> bool:
            return None not in await cache.get_many(MANY)

        await until(all_found, what="the replica answers for the dead node")
    for node in cluster.nodes[1:]:
        async with Redis(port=node.port) as client:

            async def alone(client: Redis = client) -> bool:
                # Nodes that follow or feed each other are clients too.
                return not [
                    each for each in await client.client_list(_type="normal") if each["id"] != str(await client.client_id())
                ]

            await until(alone, what="the cache's connections closed")


async def test_a_failover_is_followed(tmp_path: Path) -> None:
    """The master dies, its replica takes over: nobody sees an error, and what was replicated is found again."""
    watched = WatchedRedis(tmp_path)
    with running(watched):
        async with open_cache(watched.url, **UNSIGNED) as (cache, counts):
            assert await cache.put(key("kept"), body_of(make_tokens(4)))
            await until(lambda: watched.replicated(entry_name(key("kept"))), what="replicated")
            assert counts.errors == {}
            watched.master.kill()
            assert await cache.get(key("kept")) is None
            assert await cache.put(key("meanwhile"), body_of(make_tokens(5))) is False

            async def found() -> bool:
                return same(await cache.get(key("kept")), make_tokens(4))

            await until(found, what="the replica answers as master")
            assert watched.promoted()
            assert await cache.has_many([key("kept"), key("meanwhile")]) == [True, False]
            await until(lambda: cache.put(key("meanwhile"), body_of(make_tokens(5))), what="written to the new master")
            leases = RedisLeases(cache.link, lease_seconds=600)
            assert await leases.join(Lease.of(key("new")), INVALID_SPAN) is Standing.LEADS
