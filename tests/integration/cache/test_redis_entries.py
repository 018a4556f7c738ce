"""What the Redis tier reads back from a real Redis is what was written under that key, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.caches import raw_client, redis_cache, secret_file
from tests.support.redis_server import RedisServer
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.body import EntryBody
from vscan.cache.entry import HEADER_BYTES, EntrySeal, Flaw
from vscan.cache.recorder import Outcome, Tier
from vscan.cache.redis import KEY_PREFIX

BAD = (Tier.REDIS, Outcome.BAD_ENTRY)


def name(content_key: bytes) -> str:
    return KEY_PREFIX + content_key.hex()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
async def test_another_process_reads_what_one_wrote(redis_server: RedisServer, dtype: torch.dtype) -> None:
    value = make_tokens(1, dtype=dtype)
    async with redis_cache(redis_server) as (writer, _), redis_cache(redis_server) as (reader, counts):
        assert await writer.put(key(f"read {dtype}"), body_of(value))
        assert same(await reader.get(key(f"read {dtype}")), value)
    assert counts.lookups == {(Tier.REDIS, Outcome.HIT): 1}


async def test_a_large_value_comes_back_whole(redis_server: RedisServer) -> None:
    value = make_tokens(2, kept=576, columns=288, hidden=4096)  # 9 MiB: sealed and opened off the event loop
    async with redis_cache(redis_server) as (cache, _):
        assert await cache.put(key("large"), body_of(value))
        assert same(await cache.get(key("large")), value)


async def test_an_unknown_key_is_a_counted_miss(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server) as (cache, counts):
        assert await cache.get(key("unknown")) is None
    assert counts.lookups == {(Tier.REDIS, Outcome.MISS): 1}


async def test_several_keys_are_one_command(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis) as (cache, counts), raw_client(fresh_redis) as client:
        await cache.put(key("a"), body_of(make_tokens(1)))
        await cache.put(key("c"), body_of(make_tokens(3)))
        await client.config_resetstat()
        found = await cache.get_many([key("a"), key("b"), key("c")])
        calls = {command: stats["calls"] for command, stats in (await client.info("commandstats")).items()}
    assert calls.pop("cmdstat_mget") == 1
    assert "cmdstat_get" not in calls
    assert [same(found[0], make_tokens(1)), found[1], same(found[2], make_tokens(3))] == [True, None, True]
    assert counts.lookups == {(Tier.REDIS, Outcome.HIT): 2, (Tier.REDIS, Outcome.MISS): 1}


async def test_the_deadline_grows_with_the_entries_asked_for(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen large images in one answer are not a slow Redis. What moves no entries has the deadline of one."""
    deadlines: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        deadlines.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", noted)
    keys = [key(str(n)) for n in range(16)]
    async with redis_cache(redis_server, redis_timeout_ms=20_000) as (cache, counts):
        assert (cache.link.deadline_seconds(1), cache.link.deadline_seconds(16)) == (20.0, 320.0)
        await cache.put(keys[0], body_of(make_tokens()))
        await cache.get(keys[0])
        await cache.get_many(keys)
        await cache.has_many(keys)
    assert [seconds for seconds in deadlines if seconds is not None] == [20.0, 20.0, 320.0, 20.0]
    assert counts.errors == {}


async def test_entries_expire_and_reading_does_not_put_it_off(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server, cache_ttl_seconds=1000) as (cache, _), raw_client(redis_server) as client:
        await cache.put(key("ttl"), body_of(make_tokens()))
        assert 0 < await client.ttl(name(key("ttl"))) <= 1000
        await client.expire(name(key("ttl")), 500)
        assert await cache.get(key("ttl")) is not None
        assert 0 < await client.ttl(name(key("ttl"))) <= 500


@pytest.mark.parametrize("signed", [True, False])
async def test_two_entries_swapped_are_two_counted_misses(redis_server: RedisServer, tmp_path: Path, signed: bool) -> None:
    one, other = name(key(f"one {signed}")), name(key(f"other {signed}"))
    changes = {"cache_secret_file": secret_file(tmp_path)} if signed else {}
    async with redis_cache(redis_server, **changes) as (cache, counts), raw_client(redis_server) as client:
        await cache.put(key(f"one {signed}"), body_of(make_tokens(1)))
        await cache.put(key(f"other {signed}"), body_of(make_tokens(2)))
        await client.rename(one, "aside")
        await client.rename(other, one)
        await client.rename("aside", other)
        assert await cache.get_many([key(f"one {signed}"), key(f"other {signed}")]) == [None, None]
        assert counts.lookups == {BAD: 2}
        assert counts.flaws == {Flaw.KEY: 2}
        assert await client.exists(one, other) == 0


async def test_with_a_secret_a_forged_entry_is_a_counted_miss(redis_server: RedisServer, tmp_path: Path) -> None:
    body = body_of(make_tokens())
    forgeries = {"plain": EntrySeal(), "other secret": EntrySeal(b"another secret!!")}
    async with (
        redis_cache(redis_server, cache_secret_file=secret_file(tmp_path)) as (cache, counts),
        raw_client(redis_server) as client,
    ):
        for how, seal in forgeries.items():
            await client.set(name(key(how)), seal.seal(key(how), body))
        assert await cache.get_many([key(how) for how in forgeries]) == [None, None]
        assert await client.exists(*(name(key(how)) for how in forgeries)) == 0
    assert counts.flaws == {Flaw.TAG: 2}


@pytest.mark.parametrize(
    ("spoil", "flaw"),
    [
        pytest.param(lambda entry: b"", Flaw.TRUNCATED, id="empty"),
        pytest.param(lambda entry: entry[: HEADER_BYTES - 1], Flaw.TRUNCATED, id="half a header"),
        pytest.param(lambda entry: entry[:-1], Flaw.LENGTH, id="body cut"),
        pytest.param(lambda entry: b"\x89PNG" + entry, Flaw.FOREIGN, id="foreign"),
        pytest.param(lambda entry: entry[:7] + b"\x63" + entry[8:], Flaw.VERSION, id="another codec"),
        pytest.param(lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]), Flaw.TAG, id="one bit of the body"),
        pytest.param(lambda entry: EntrySeal().seal(entry[16:48], EntryBody(b"\xff" * 50)), Flaw.BODY, id="sealed nonsense"),
    ],
)
async def test_a_bad_entry_is_deleted_and_can_be_written_again(
    redis_server: RedisServer, spoil: Callable[[bytes], bytes], flaw: Flaw
) -> None:
    content_key = key(f"spoiled {flaw} {spoil(b'x' * 200)!r}")
    async with redis_cache(redis_server) as (cache, counts), raw_client(redis_server) as client:
        await client.set(name(content_key), spoil(EntrySeal().seal(content_key, body_of(make_tokens()))))
        assert await cache.get(content_key) is None
        assert (counts.flaws, counts.lookups) == ({flaw: 1}, {BAD: 1})
        assert await client.exists(name(content_key)) == 0
        assert await cache.put(content_key, body_of(make_tokens()))
        assert same(await cache.get(content_key), make_tokens())


async def test_a_bad_entry_does_not_hide_the_good_ones_beside_it(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server) as (cache, _), raw_client(redis_server) as client:
        await cache.put(key("good beside bad"), body_of(make_tokens(5)))
        await client.set(name(key("bad beside good")), b"junk")
        bad, good = await cache.get_many([key("bad beside good"), key("good beside bad")])
    assert bad is None
    assert same(good, make_tokens(5))


async def test_a_key_that_holds_something_else_is_a_miss_and_is_overwritten(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server) as (cache, _), raw_client(redis_server) as client:
        await client.lpush(name(key("a list")), "x")
        assert await cache.get(key("a list")) is None
        assert await cache.put(key("a list"), body_of(make_tokens()))
        assert await cache.get(key("a list")) is not None


async def test_asking_where_entries_are_does_not_touch_them(fresh_redis: RedisServer) -> None:
    async with redis_cache(fresh_redis) as (cache, _), raw_client(fresh_redis) as client:
        # Under this policy Redis counts every access that touches a key.
        await client.config_set("maxmemory-policy", "allkeys-lfu")
        await client.config_set("lfu-log-factor", "0")
        await cache.put(key("there"), body_of(make_tokens()))
        before = await client.object("freq", name(key("there")))
        assert await cache.has_many([key("there"), key("not there")]) == [True, False]
        assert await client.object("freq", name(key("there"))) == before
        await cache.get(key("there"))
        assert await client.object("freq", name(key("there"))) > before


async def test_no_keys_ask_nothing(redis_server: RedisServer) -> None:
    async with redis_cache(redis_server) as (cache, counts):
        assert await cache.get_many([]) == []
        assert await cache.has_many([]) == []
    assert counts.lookups == {}
