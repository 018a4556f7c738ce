"""One encoding among all replicas: whoever holds the lease encodes, the others wait for its entry.

    replica A   join ─▶ LEADS ── encodes, renews … ── publish ─┐ entry, lease ends
    replica B   join ─▶ WAITS … join ─▶ WAITS … join ──────────┴▶ FOUND ─▶ get
    replica C   join ─▶ WAITS …  (A dies: its lease expires)  … join ─▶ LEADS ── encodes …

Within a process `SingleFlight` has made one caller of many already. Redis away: everyone encodes for itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opentelemetry.trace import NoOpTracer, Span, Tracer

from vscan.cache.lease import Lease, RedisLeases, Standing
from vscan.cache.recorder import LeaseOutcome
from vscan.cache.tiers import CacheHit, TieredCache
from vscan.telemetry import names

# An answer is awaited for about a pass of the transformer; asking costs Redis some microseconds.
_FIRST_PAUSE_SECONDS = 0.004
_LONGEST_PAUSE_SECONDS = 0.1
_PAUSE_GROWTH = 1.5
# A third of a lease between renewals: two may be late. In all two minutes of the default lease; a pass that takes longer hangs.
_RENEWALS_A_LEASE = 3
_MOST_RENEWALS = 72


@dataclass(frozen=True, slots=True)
class Turn:
    """What a replica may do about an image: use what was found, or encode, and write under the lease."""

    hit: CacheHit | None = None
    waited: bool = False  # for another replica's encoding
    lease: Lease | None = None  # None: leases are off


class ReplicaTurns:
    """Belongs to one event loop. Without leases every turn is one's own."""

    def __init__(self, cache: TieredCache, leases: RedisLeases | None = None, *, tracer: Tracer | None = None) -> None:
        self._cache = cache
        self._leases = leases
        self._tracer = tracer or NoOpTracer()

    @classmethod
    def of(cls, cache: TieredCache, *, lease_seconds: float, tracer: Tracer | None = None) -> ReplicaTurns:
        """With leases in the cache's Redis; without any if there is none, or `lease_seconds` is 0."""
        if cache.redis is None or lease_seconds == 0:
            return cls(cache, tracer=tracer)
        return cls(cache, RedisLeases(cache.redis.link, lease_seconds=lease_seconds), tracer=tracer)

    @asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[Turn]:
        """Waits while another replica makes the entry of `key`. To be called where no cache has it.

        The lease lasts as long as the context does, also when that ends with an error or is cancelled; a write under the lease
        ends it too.
        """
        if self._leases is None:
            yield Turn()
            return
        lease = Lease.of(key)
        renewing: asyncio.Task[None] | None = None
        try:
            turn = await self._await_turn(self._leases, lease)
            if lease.held:
                renewing = asyncio.create_task(self._renew(self._leases, lease))
            yield turn
        finally:
            if renewing is not None:
                renewing.cancel()
            await self._leases.release(lease)

    async def _await_turn(self, leases: RedisLeases, lease: Lease) -> Turn:
        with self._tracer.start_as_current_span(names.SPAN_REDIS_LEASE) as span:
            span.set_attribute(names.ATTR_DB_SYSTEM, "redis")
            turn, outcome = await self._poll(leases, lease, span)
            if outcome is not None:
                leases.recorder.leased(outcome)
                span.set_attribute(names.ATTR_LEASE_OUTCOME, outcome)
            return turn

    async def _poll(self, leases: RedisLeases, lease: Lease, span: Span) -> tuple[Turn, LeaseOutcome | None]:
        """None as outcome: nobody was waited for, the entry came between the look into the cache and this one."""
        waited = over_entry = False
        for polls, pause in enumerate(_pauses(), start=1):
            span.set_attribute(names.ATTR_LEASE_POLLS, polls)
            standing = await leases.join(lease, span, over_entry=over_entry)
            if standing is Standing.AWAY:
                return Turn(lease=lease), LeaseOutcome.ALONE
            if standing is Standing.LEADS:
                if over_entry and (hit := await self._cache.get(lease.key)) is not None:
                    return Turn(hit, waited), LeaseOutcome.WAITED if waited else None  # another one has made it anew meanwhile
                return Turn(lease=lease), LeaseOutcome.TAKEN_OVER if waited else LeaseOutcome.LED
            if standing is Standing.WAITS:
                waited, over_entry = True, False
                await asyncio.sleep(pause)
                continue
            hit = await self._cache.get(lease.key)
            if hit is not None:
                return Turn(hit, waited), LeaseOutcome.WAITED if waited else None
            over_entry = True  # there, and not to be read or trusted: made anew, whether or not it could be deleted
        raise AssertionError("pauses do not end")

    async def _renew(self, leases: RedisLeases, lease: Lease) -> None:
        for _ in range(_MOST_RENEWALS):
            await asyncio.sleep(leases.lease_seconds / _RENEWALS_A_LEASE)
            if not await leases.renew(lease) and lease.held:
                leases.recorder.leased(LeaseOutcome.LOST)
                return  # encoding goes on: somebody here waits for it


def _pauses() -> Iterator[float]:
    """Seconds between two questions, longer each time; at random, so that replicas do not ask in step."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(_LONGEST_PAUSE_SECONDS, pause * _PAUSE_GROWTH)
