"""Images to visual tokens, remembered: the caches, one flight for each key, and behind them the pipeline.

An entry is written only under a digest that was computed here from bytes. A digest that a caller sends is only looked up.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import Span, Tracer

from encoder_service.cache.replica_turns import ReplicaTurns, Turn
from encoder_service.cache.single_flight import SingleFlight
from encoder_service.identity import EncoderIdentity
from encoder_service.images import ImageLimits, check_bytes
from encoder_service.pipeline import Pipeline
from encoder_service.reduction.budget import Grid, plan_reduction
from vscan.cache.body import BodyCodec
from vscan.cache.place import Place
from vscan.cache.tiers import CacheHit, TieredCache
from vscan.content_key import content_key
from vscan.errors import InvalidArgument, MissingImages
from vscan.offload import off_loop_if_large
from vscan.specs import ReductionSpec
from vscan.telemetry import names
from vscan.telemetry.logs import add_request_fields, short_digest
from vscan.telemetry.metrics import EncoderMetrics, TokenMetrics
from vscan.tensors import DTYPE_NAMES
from vscan.visual_tokens import CODEC_VERSION, VisualTokens

PLAIN_BODIES = BodyCodec()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The parts of one request, in milliseconds; 0 for a part that did not run for it."""

    queue_ms: float = 0.0
    decode_image_ms: float = 0.0
    vit_ms: float = 0.0
    reduce_ms: float = 0.0
    cache_get_ms: float = 0.0
    cache_put_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The tokens of one image, and how they came."""

    value: VisualTokens
    place: Place
    sha256: bytes
    content_key: bytes
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Found:
    value: VisualTokens
    place: Place
    timings: Timings


class ImageEncoder:
    """What the service does, without its wire. Belongs to one event loop."""

    def __init__(
        self,
        identity: EncoderIdentity,
        pipeline: Pipeline,
        cache: TieredCache,
        *,
        grid: Grid,
        defaults: ReductionSpec,
        limits: ImageLimits,
        tracer: Tracer,
        metrics: EncoderMetrics,
        token_metrics: TokenMetrics,
        turns: ReplicaTurns | None = None,
        body_codec: BodyCodec = PLAIN_BODIES,
    ) -> None:
        """`grid` is the one that budgets are checked against before anything is done; `defaults` has every field set.

        Without `turns` other replicas are not waited for.
        """
        self.identity = identity
        self.defaults = defaults
        self.limits = limits
        self._pipeline = pipeline
        self._cache = cache
        self._turns = turns or ReplicaTurns(cache)
        self._body_codec = body_codec
        self._flights: SingleFlight[_Found] = SingleFlight()
        self._grid = grid
        self._tracer = tracer
        self._metrics = metrics
        self._token_metrics = token_metrics
        self.filled(ReductionSpec())

    async def encode(self, data: bytes, reduction: ReductionSpec, tenant: str) -> Encoding:
        """The tokens of an image file: from a cache, from another request's encoding, or encoded now.

        Raises:
            InvalidArgument: the image, or the spec; names the field and the limit.
            ResourceExhausted: too many wait.
            Unavailable: the service is stopping, or its worker has died.
        """
        began = time.perf_counter()
        check_bytes(data, self.limits)
        filled = self.filled(reduction)
        with self._tracer.start_as_current_span(names.SPAN_ENCODE, record_exception=False) as span:
            sha256 = await off_loop_if_large(len(data), hashlib.sha256(data).digest)
            key = self._key(sha256, filled, tenant)
            span.set_attribute(names.ATTR_IMAGE_BYTES, len(data))
            found, shared = await self._flights.run(key, lambda: self._find_or_encode(key, sha256, data, filled))
            if shared:
                self._metrics.shared()
                found = _as_shared(found)
            return self._ended(span, found, sha256, key, began)

    async def find(self, sha256: bytes, reduction: ReductionSpec, tenant: str) -> Encoding:
        """The tokens of an image named by its digest, 32 bytes, if they are in a cache.

        Raises:
            InvalidArgument: the spec.
            MissingImages: they are not.
        """
        began = time.perf_counter()
        filled = self.filled(reduction)
        with self._tracer.start_as_current_span(names.SPAN_ENCODE, record_exception=False) as span:
            key = self._key(sha256, filled, tenant)
            hit, get_ms = await self._get(key)
            if hit is None:
                raise MissingImages([sha256])
            return self._ended(span, _Found(hit.value, hit.place, Timings(cache_get_ms=get_ms)), sha256, key, began)

    async def lookup(self, digests: Sequence[bytes], reduction: ReductionSpec, tenant: str) -> list[Place | None]:
        """Where the tokens of each image are, in the order of the digests; None if they are nowhere. Raises InvalidArgument."""
        filled = self.filled(reduction)
        return await self._cache.locate_many([self._key(digest, filled, tenant) for digest in digests])

    def filled(self, reduction: ReductionSpec) -> ReductionSpec:
        """A request's spec with the defaults in it, checked against the grid. Raises InvalidArgument below `reduction`."""
        filled = reduction.filled_from(self.defaults)
        try:
            plan_reduction(filled, self._grid, self.identity.scan.window)
        except InvalidArgument as error:
            raise error.below("reduction") from error
        return filled

    async def aclose(self) -> None:
        """Stops all work under way; who waits for it gets Unavailable."""
        await self._flights.aclose()

    async def _find_or_encode(self, key: bytes, sha256: bytes, data: bytes, filled: ReductionSpec) -> _Found:
        # The look into the caches is part of the flight: else one that landed in between would be flown again.
        hit, get_ms = await self._get(key)
        if hit is not None:
            return _Found(hit.value, hit.place, Timings(cache_get_ms=get_ms))
        async with self._turns.turn(key) as turn:
            if turn.hit is not None:
                return self._from_replica(turn.hit, waited=turn.waited)
            encoded = await self._pipeline.encode(data, sha256, filled)
            self._token_metrics.record("encoder", encoded.value.unreduced_count, encoded.value.kept_count)
            value, put_ms = await self._put(key, encoded.value, turn)
        timings = Timings(
            queue_ms=encoded.queue_ms,
            decode_image_ms=encoded.decode_image_ms,
            vit_ms=encoded.vit_ms,
            reduce_ms=encoded.reduce_ms,
            cache_get_ms=get_ms,
            cache_put_ms=put_ms,
        )
        return _Found(value, Place.ENCODED, timings)

    def _from_replica(self, hit: CacheHit, *, waited: bool) -> _Found:
        """What another replica encoded, under way when it was asked for or just before."""
        if not waited:
            return _Found(hit.value, hit.place, Timings())
        self._metrics.shared()
        return _Found(hit.value, Place.SHARED, Timings())

    async def _get(self, key: bytes) -> tuple[CacheHit | None, float]:
        began = time.perf_counter()
        hit = await self._cache.get(key)
        return hit, _since_ms(began)

    async def _put(self, key: bytes, value: VisualTokens, turn: Turn) -> tuple[VisualTokens, float]:
        """Writes the caches. Returns the value as those will see it who find it there: a lossy codec changes it."""
        began = time.perf_counter()
        with self._tracer.start_as_current_span(names.SPAN_CACHE_PUT) as span:
            span.set_attribute(names.ATTR_CACHE_BYTES, value.nbytes)
            settled, body = await off_loop_if_large(value.nbytes, lambda: self._body_codec.settle(value))
            await self._cache.put(key, settled, body, lease=turn.lease)
        return settled, _since_ms(began)

    def _key(self, sha256: bytes, filled: ReductionSpec, tenant: str) -> bytes:
        return content_key(
            codec_version=CODEC_VERSION,
            fingerprint=self.identity.fingerprint,
            reduction=filled,
            dtype=DTYPE_NAMES[self.identity.dtype],
            tenant=tenant,
            media_sha256=sha256,
        )

    def _ended(self, span: Span, found: _Found, sha256: bytes, key: bytes, began: float) -> Encoding:
        before, after, place = found.value.unreduced_count, found.value.kept_count, found.place.name.lower()
        span.set_attributes(
            {
                names.ATTR_IMAGE_DIGEST: short_digest(sha256),
                names.ATTR_PLACE: place,
                names.ATTR_TOKENS_BEFORE: before,
                names.ATTR_TOKENS_AFTER: after,
            }
        )
        add_request_fields(image=short_digest(sha256), place=place, tokens_before=before, tokens_after=after)
        timings = replace(found.timings, total_ms=_since_ms(began))
        return Encoding(value=found.value, place=found.place, sha256=sha256, content_key=key, timings=timings)


def _as_shared(found: _Found) -> _Found:
    """As one sees it who only waited for another's flight."""
    return _Found(found.value, Place.SHARED if found.place is Place.ENCODED else found.place, Timings())


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
