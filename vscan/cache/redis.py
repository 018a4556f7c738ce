"""The Redis tier: sealed entries shared by all replicas. Redis slow, away or full costs speed, never an answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

import torch
from opentelemetry.trace import Tracer

from vscan.cache.body import EntryBody, read_body
from vscan.cache.entry import EntrySeal, Flaw
from vscan.cache.lease import ENTRY_PREFIX, PUBLISH, Lease, entry_name
from vscan.cache.recorder import CacheRecorder, Outcome, Tier
from vscan.cache.redis_link import Access, NoAnswer, Operation, RedisLink
from vscan.cache.settings import CacheSettings, cache_secret
from vscan.content_key import DIGEST_BYTES
from vscan.errors import InvalidArgument
from vscan.offload import off_loop_if_large
from vscan.telemetry import names
from vscan.visual_tokens import VisualTokens

log = logging.getLogger(__name__)

KEY_PREFIX = ENTRY_PREFIX


class RedisCache:
    """Visual tokens by content key, verified on every read. Belongs to one event loop.

    Nothing here raises for a fault of Redis: a lookup misses, a write is dropped, the recorder counts it.
    """

    def __init__(self, link: RedisLink, *, seal: EntrySeal, ttl_seconds: int) -> None:
        self.link = link
        self._seal = seal
        self._ttl_seconds = ttl_seconds
        self._recorder = link.recorder

    @classmethod
    def from_settings(
        cls, settings: CacheSettings, *, recorder: CacheRecorder | None = None, tracer: Tracer | None = None
    ) -> RedisCache:
        """Connects on first use. Raises StartupError for an unreadable secret."""
        link = RedisLink.from_settings(settings, recorder=recorder, tracer=tracer)
        return cls(link, seal=EntrySeal(cache_secret(settings)), ttl_seconds=settings.cache_ttl_seconds)

    async def get(self, key: bytes) -> VisualTokens | None:
        """The verified value, or None."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[VisualTokens | None]:
        """The verified values in the order of `keys`, None where there is none; one round trip."""
        if not keys:
            return []
        entry_names = [entry_name(key) for key in keys]
        with self.link.span(names.SPAN_REDIS_GET) as span:
            span.set_attribute(names.ATTR_CACHE_ENTRIES, len(keys))
            try:
                entries = await self.link.ask(Operation.GET, lambda: self.link.client.get_many(entry_names), span, len(keys))
            except NoAnswer as silence:
                self._recorder.looked_up(Tier.REDIS, silence.outcome, len(keys))
                return [None] * len(keys)
            values = [await self._open(key, entry) for key, entry in zip(keys, entries, strict=True)]
            trusted = [value if isinstance(value, VisualTokens) else None for value in values]
            span.set_attribute(names.ATTR_CACHE_HIT, None not in trusted)
            span.set_attribute(names.ATTR_CACHE_BYTES, sum(len(entry or b"") for entry in entries))
        await self._delete([key for key, value in zip(keys, values, strict=True) if isinstance(value, Flaw)])
        return trusted

    async def put(self, key: bytes, body: EntryBody, lease: Lease | None = None) -> bool:
        """Writes a value's body under its key, for the TTL. False if Redis did not take it.

        With a lease, held or not, it is written only while no other replica makes this entry; the lease ends with it.
        """
        entry = await off_loop_if_large(len(body.data), lambda: self._seal.seal(key, body))
        with self.link.span(names.SPAN_REDIS_SET) as span:
            span.set_attribute(names.ATTR_CACHE_BYTES, len(entry))
            try:
                written = await self.link.ask(Operation.SET, lambda: self._write(key, entry, lease), span)
            except NoAnswer as silence:
                self._recorder.written(Tier.REDIS, silence.outcome)
                return False
            if not written:
                span.set_attribute(names.ATTR_CACHE_RESULT, Outcome.REFUSED)
        if lease is not None:
            lease.over()
        self._recorder.written(Tier.REDIS, Outcome.OK if written else Outcome.REFUSED)
        return written

    async def has_many(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether each key has an entry, unverified, without touching its age; one round trip. False if Redis is away."""
        if not keys:
            return []
        entry_names = [entry_name(key) for key in keys]
        with self.link.span(names.SPAN_REDIS_EXISTS) as span:
            span.set_attribute(names.ATTR_CACHE_ENTRIES, len(keys))
            try:
                return await self.link.ask(Operation.EXISTS, lambda: self.link.client.exist(entry_names), span)
            except NoAnswer:
                return [False] * len(keys)

    async def answers(self) -> bool:
        """Asks until Redis has answered or its breaker leaves it alone."""
        while not self.link.left_alone(Access.READ):
            with suppress(NoAnswer):
                await self.link.ask(Operation.EXISTS, lambda: self.link.client.exist([entry_name(bytes(DIGEST_BYTES))]))
                return True
        return False

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.link.aclose()

    async def _write(self, key: bytes, entry: bytes, lease: Lease | None) -> bool:
        client = self.link.client
        if lease is None:
            await client.set(entry_name(key), entry, ttl_seconds=self._ttl_seconds)
            return True
        return bool(await client.run(PUBLISH, lease.names, lease.token, entry, self._ttl_seconds))

    async def _open(self, key: bytes, entry: bytes | None) -> VisualTokens | Flaw | None:
        if entry is None:
            self._recorder.looked_up(Tier.REDIS, Outcome.MISS)
            return None
        value = await off_loop_if_large(len(entry), lambda: self._decode(key, entry))
        if isinstance(value, Flaw):
            self._recorder.looked_up(Tier.REDIS, Outcome.BAD_ENTRY)
            self._recorder.rejected(value)
            log.warning("a Redis entry is not to be trusted (%s) and is deleted", value)
        else:
            self._recorder.looked_up(Tier.REDIS, Outcome.HIT)
        return value

    def _decode(self, key: bytes, entry: bytes) -> VisualTokens | Flaw:
        body = self._seal.open(key, entry)
        if isinstance(body, Flaw):
            return body
        try:
            value = read_body(body)
        except InvalidArgument:
            return Flaw.BODY
        return value if bool(torch.isfinite(value.tokens).all()) else Flaw.BODY  # no encoder's: no reader could use them

    async def _delete(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        entry_names = [entry_name(key) for key in keys]
        with self.link.span(names.SPAN_REDIS_DELETE) as span:
            try:
                await self.link.ask(Operation.DELETE, lambda: self.link.client.unlink(entry_names), span)
            except NoAnswer:
                return  # it stays, and is rejected again
