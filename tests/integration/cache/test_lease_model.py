"""Leases against a model of them, in any order of what replicas and Redis may do: one holder, and no stale write."""

from __future__ import annotations

from random import Random

import pytest
from opentelemetry.trace import INVALID_SPAN
from redis.asyncio import Redis

from tests.support.caches import raw_client, redis_cache
from tests.support.redis_server import RedisServer
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import Lease, RedisLeases, Standing, entry_name, lease_name
from vscan.cache.redis import RedisCache

KEY = key("model")
LEASE_SECONDS = 600.0
STEPS = 2000
VALUES = [make_tokens(seed) for seed in range(3)]  # what each replica makes; the same in life, told apart here
NOBODY = -1  # one who is not there any more, or an entry that is not to be read


class Model:
    """Replicas over a real Redis; `holder` and `entry` are what must be there: numbers of replicas, NOBODY, or None."""

    def __init__(self, cache: RedisCache, raw: Redis, draw: Random) -> None:
        self.cache = cache
        self.leases = RedisLeases(cache.link, lease_seconds=LEASE_SECONDS)
        self.raw = raw
        self.draw = draw
        self.claims = [Lease.of(KEY) for _ in VALUES]
        self.holder: int | None = None
        self.entry: int | None = None
        self.stale: set[str] = set()  # what was tried without being the holder any more, while another one was

    async def step(self) -> None:
        """One of all that may happen, by one of the replicas."""
        acts = [
            self.join,
            self.join,
            self.renew,
            self.publish,
            self.release,
            self.begin_anew,
            self.read,
            self.lose,
            self.lose,
            self.spoil,
        ]
        await self.draw.choice(acts)(self.draw.randrange(len(VALUES)))
        await self.check()

    async def join(self, who: int) -> None:
        over_entry = self.draw.random() < 0.3
        standing = await self.leases.join(self.claims[who], INVALID_SPAN, over_entry=over_entry)
        if self.entry is not None and not over_entry:
            assert standing is Standing.FOUND
        elif self.holder in (None, who):
            assert standing is Standing.LEADS
            self.holder = who
        else:
            assert standing is Standing.WAITS
        assert self.claims[who].held is (standing is Standing.LEADS)

    async def renew(self, who: int) -> None:
        self._try("renew", who)
        assert await self.leases.renew(self.claims[who]) is (self.holder == who)

    async def publish(self, who: int) -> None:
        self._try("publish", who)
        may = self.holder == who or (self.holder is None and self.entry is None)
        assert await self.cache.put(KEY, body_of(VALUES[who]), self.claims[who]) is may
        if may:
            self.holder, self.entry = None, who
        assert not self.claims[who].held

    async def release(self, who: int) -> None:
        self._try("release", who)
        gives = self.claims[who].held and self.holder == who
        await self.leases.release(self.claims[who])
        self.holder = None if gives else self.holder

    async def begin_anew(self, who: int) -> None:
        """A replica is started again: its old lease stays until it expires."""
        self.claims[who] = Lease.of(KEY)
        self.holder = NOBODY if self.holder == who else self.holder

    async def read(self, who: int) -> None:
        """What is spoilt is deleted."""
        found = await self.cache.get(KEY)
        assert found is None if self.entry in (None, NOBODY) else same(found, VALUES[self.entry])
        self.entry = None if self.entry == NOBODY else self.entry

    async def lose(self, who: int) -> None:
        """The lease expires, the entry is evicted, or Redis is restarted."""
        what = self.draw.choice(["lease", "lease", "entry", "both"])
        if what != "entry":
            await self.raw.delete(lease_name(KEY))
            self.holder = None
        if what != "lease":
            await self.raw.delete(entry_name(KEY))
            self.entry = None

    async def spoil(self, who: int) -> None:
        await self.raw.set(entry_name(KEY), b"junk")
        self.entry = NOBODY

    async def check(self) -> None:
        """Redis is as it must be, and no lease is without an end."""
        token, entry = await self.raw.mget(lease_name(KEY), entry_name(KEY))
        assert (token is None, entry is None) == (self.holder is None, self.entry is None)
        if self.holder is not None and self.holder != NOBODY:
            assert token.decode() == self.claims[self.holder].token
        assert token is None or 0 < await self.raw.pttl(lease_name(KEY)) <= LEASE_SECONDS * 1000

    def _try(self, what: str, who: int) -> None:
        if self.claims[who].held and self.holder not in (None, who):
            self.stale.add(what)


@pytest.mark.parametrize("seed", range(2))
async def test_leases_are_as_their_model(fresh_redis: RedisServer, seed: int) -> None:
    async with redis_cache(fresh_redis) as (cache, counts), raw_client(fresh_redis) as raw:
        model = Model(cache, raw, Random(seed))
        for _ in range(STEPS):
            await model.step()
        assert model.stale == {"renew", "publish", "release"}, "no test of who has lost its lease"
        assert counts.errors == {}
