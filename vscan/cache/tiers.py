"""Memory before Redis: the cache as the services see it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import Tracer

from vscan.cache.body import EntryBody
from vscan.cache.lease import Lease
from vscan.cache.memory import MemoryCache
from vscan.cache.place import Place
from vscan.cache.recorder import CacheRecorder, CountingRecorder, Outcome, Tier
from vscan.cache.redis import RedisCache
from vscan.cache.settings import CacheSettings
from vscan.offload import off_loop_if_large
from vscan.visual_tokens import VisualTokens

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A value, and the tier that had it."""

    value: VisualTokens
    place: Place


class TieredCache:
    """The memory tier, then the Redis tier, if there is one. Belongs to one event loop; never raises for a fault of Redis."""

    def __init__(self, memory: MemoryCache, redis: RedisCache | None = None, *, recorder: CacheRecorder | None = None) -> None:
        self.redis = redis
        self._memory = memory
        self._recorder = recorder or CountingRecorder()

    @classmethod
    def from_settings(
        cls, settings: CacheSettings, *, recorder: CacheRecorder | None = None, tracer: Tracer | None = None
    ) -> TieredCache:
        """Both tiers as the settings say. Raises StartupError for an unreadable secret."""
        redis = RedisCache.from_settings(settings, recorder=recorder, tracer=tracer) if settings.redis_url else None
        return cls(MemoryCache(settings.cache_memory_bytes), redis, recorder=recorder)

    async def get(self, key: bytes) -> CacheHit | None:
        """The value and where it was; one found in Redis is in memory from then on."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[CacheHit | None]:
        """As `get`, in the order of `keys`; Redis is asked once, for what memory lacks."""
        hits = {key: self._from_memory(key) for key in dict.fromkeys(keys)}
        lacking = [key for key, hit in hits.items() if hit is None]
        if self.redis is not None and lacking:
            for key, value in zip(lacking, await self.redis.get_many(lacking), strict=True):
                if value is not None:
                    self.remember(key, value)
                    hits[key] = CacheHit(value, Place.REDIS)
        return [hits[key] for key in keys]

    async def put(self, key: bytes, value: VisualTokens, body: EntryBody | None = None, *, lease: Lease | None = None) -> None:
        """Stores in both tiers. `body` is the value's where the caller has it already; for `lease` see `RedisCache.put`."""
        self.remember(key, value)
        if self.redis is not None:
            if body is None:
                body = EntryBody(await off_loop_if_large(value.nbytes, value.to_bytes))
            await self.redis.put(key, body, lease)

    def remember(self, key: bytes, value: VisualTokens) -> None:
        """Stores in memory only: for what came from the encoder, which alone writes to Redis."""
        if self._memory.put(key, value):
            self._recorder.written(Tier.MEMORY, Outcome.OK)
        self._recorder.holds(len(self._memory), self._memory.used_bytes)

    async def locate(self, key: bytes) -> Place | None:
        """The first tier that has the key, without moving, refreshing or verifying its entry."""
        return (await self.locate_many([key]))[0]

    async def locate_many(self, keys: Sequence[bytes]) -> list[Place | None]:
        """As `locate`, in the order of `keys`; Redis is asked once."""
        places: dict[bytes, Place | None] = {key: Place.MEMORY if key in self._memory else None for key in keys}
        lacking = [key for key, place in places.items() if place is None]
        if self.redis is not None and lacking:
            for key, found in zip(lacking, await self.redis.has_many(lacking), strict=True):
                places[key] = Place.REDIS if found else None
        return [places[key] for key in keys]

    async def decide(self) -> None:
        """Finds out whether Redis answers or is to be left alone, so that no request has to. Bounded by its settings."""
        if self.redis is not None:
            answers = await self.redis.answers()
            _log.info("Redis %s", "answers" if answers else "does not answer: going on without it until it does")

    async def aclose(self) -> None:
        """Closes the connections to Redis."""
        if self.redis is not None:
            await self.redis.aclose()

    def _from_memory(self, key: bytes) -> CacheHit | None:
        value = self._memory.get(key)
        self._recorder.looked_up(Tier.MEMORY, Outcome.MISS if value is None else Outcome.HIT)
        return None if value is None else CacheHit(value, Place.MEMORY)
