"""Replicas of an encoder as far as caches and leases go: each a cache of its own over one Redis, and a made-up encoding."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from encoder_service.cache.replica_turns import ReplicaTurns, Turn
from tests.support.caches import tiered_cache
from tests.support.redis_server import RedisServer
from tests.support.visual_values import make_tokens
from vscan.cache.recorder import CountingRecorder
from vscan.cache.tiers import TieredCache

FOREVER_SECONDS = 600.0  # no test waits for such a lease to expire
VALUE = make_tokens(1)


class Replica:
    """A cache of its own over a shared Redis, and what stands for an encoder: it waits while `go` is not set."""

    def __init__(self, cache: TieredCache, counts: CountingRecorder, lease_seconds: float) -> None:
        self.cache = cache
        self.counts = counts
        self.turns = ReplicaTurns.of(cache, lease_seconds=lease_seconds)
        self.made = 0
        self.making = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def find_or_make(self, content_key: bytes) -> Turn:
        """As an encoder does. Raises `error`, if it is set, where an encoder would encode."""
        if (hit := await self.cache.get(content_key)) is not None:
            return Turn(hit)
        async with self.turns.turn(content_key) as turn:
            if turn.hit is None:
                self.making.set()
                await self.go.wait()
                if self.error is not None:
                    raise self.error
                self.made += 1
                await self.cache.put(content_key, VALUE, lease=turn.lease)
            return turn


@asynccontextmanager
async def replicas(
    server: RedisServer, count: int, lease_seconds: float = FOREVER_SECONDS, **changes: Any
) -> AsyncIterator[list[Replica]]:
    """So many over one Redis; `changes` are those of their caches' settings."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(tiered_cache(server, **changes)) for _ in range(count)]
        yield [Replica(cache, counts, lease_seconds) for cache, counts in opened]


def outcomes(some: list[Replica]) -> Counter[str]:
    """How the turns of all came out."""
    return sum((each.counts.leases for each in some), Counter())
