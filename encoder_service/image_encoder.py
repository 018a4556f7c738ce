"""Images and videos to visual tokens, remembered: the caches, one flight for each key, and behind them the pipeline.

An entry is written only under a digest that was computed here from bytes. A digest that a caller sends is only looked up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import Span, Tracer

from encoder_service.cache.replica_turns import ReplicaTurns, Turn
from encoder_service.cache.single_flight import SingleFlight
from encoder_service.identity import EncoderIdentity
from encoder_service.media import Media, MediaLimits
from encoder_service.pipeline import Pipeline
from encoder_service.reduction.budget import Grid, plan_reduction
from encoder_service.reply_size import TooLargeToSend, too_large_to_send
from vscan.cache.body import BodyCodec
from vscan.cache.place import Place
from vscan.cache.tiers import CacheHit, TieredCache
from vscan.content_key import content_key
from vscan.errors import InvalidArgument, MissingImages
from vscan.offload import off_loop_if_large
from vscan.specs import FrameCount, FrameSampling, ReductionSpec, filled_sampling
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
    """The tokens of one image or video, and how they came."""

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
        frame_sampling: FrameSampling | None,
        limits: MediaLimits,
        tracer: Tracer,
        metrics: EncoderMetrics,
        token_metrics: TokenMetrics,
        turns: ReplicaTurns | None = None,
        body_codec: BodyCodec = PLAIN_BODIES,
    ) -> None:
        """`grid` is the one that budgets are checked against before anything is done; `defaults` has every field set.

        `frame_sampling` is what a video gets that asks for none; without it, videos are refused. Without `turns` other replicas
        are not waited for.
        """
        self.identity = identity
        self.defaults = defaults
        self.frame_sampling = frame_sampling
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

    async def encode(self, media: Media, reduction: ReductionSpec, tenant: str, max_bytes: int | None = None) -> Encoding:
        """The tokens of an image or video: from a cache, from another request's encoding, or encoded now.

        Nothing is encoded of which it is certain that more than `max_bytes` of tokens would come.

        Raises:
            InvalidArgument: the image or video, or the spec; names the field and the limit.
            ResourceExhausted: too many wait.
            Unavailable: the service is stopping, or its worker has died.
        """
        began = time.perf_counter()
        media.check(self.limits)
        filled = self.filled(reduction)
        with self._tracer.start_as_current_span(names.SPAN_ENCODE, record_exception=False) as span:
            sha256 = await off_loop_if_large(media.size_bytes, media.sha256)
            key = self._key(sha256, filled, tenant, media.sampling)
            span.set_attribute(names.ATTR_IMAGE_BYTES, media.size_bytes)
            found, shared = await self._flown(
                key, lambda: self._find_or_encode(key, sha256, media, filled, max_bytes), max_bytes
            )
            if shared:
                self._metrics.shared()
                found = _as_shared(found)
            return self._ended(span, found, sha256, key, began)

    async def find(
        self, sha256: bytes, reduction: ReductionSpec, tenant: str, sampling: FrameSampling | None = None
    ) -> Encoding:
        """The tokens of an image, or of a video so sampled, named by its digest, 32 bytes, if they are in a cache.

        Raises:
            InvalidArgument: the spec.
            MissingImages: they are not.
        """
        began = time.perf_counter()
        filled = self.filled(reduction)
        with self._tracer.start_as_current_span(names.SPAN_ENCODE, record_exception=False) as span:
            key = self._key(sha256, filled, tenant, sampling)
            hit, get_ms = await self._get(key)
            if hit is None:
                raise MissingImages([sha256])
            return self._ended(span, _Found(hit.value, hit.place, Timings(cache_get_ms=get_ms)), sha256, key, began)

    async def lookup(
        self, digests: Sequence[bytes], reduction: ReductionSpec, tenant: str, sampling: FrameSampling | None = None
    ) -> list[Place | None]:
        """Where the tokens of each image, or video so sampled, are, in the order of the digests; None if they are nowhere.

        Raises InvalidArgument.
        """
        filled = self.filled(reduction)
        return await self._cache.locate_many([self._key(digest, filled, tenant, sampling) for digest in digests])

    def filled(self, reduction: ReductionSpec) -> ReductionSpec:
        """A request's spec with the defaults in it, checked against the grid. Raises InvalidArgument below `reduction`."""
        filled = reduction.filled_from(self.defaults)
        try:
            plan_reduction(filled, self._grid, self.identity.scan.window)
        except InvalidArgument as error:
            raise error.below("reduction") from error
        return filled

    def filled_sampling(
        self, asked: FrameSampling | None, field: str = "video.sampling", *, sent_frames: bool = False
    ) -> FrameSampling:
        """Which frames of a video are looked at, the default filled in. Raises InvalidArgument, at or below `field`."""
        if self.frame_sampling is None:
            raise InvalidArgument(field.partition(".")[0], f"{self.identity.family} takes no videos")
        most = self.limits.video.max_frames
        if isinstance(asked, FrameCount) and asked.count > most:
            raise InvalidArgument(f"{field}.frames", f"{asked.count}", limit=f"1 to {most}")
        try:
            return filled_sampling(asked, self.frame_sampling, sent_frames=sent_frames)
        except InvalidArgument as error:
            raise error.below("video") from error

    async def aclose(self) -> None:
        """Stops all work under way; who waits for it gets Unavailable."""
        await self._flights.aclose()

    async def _flown(self, key: bytes, make: Callable[[], Awaitable[_Found]], max_bytes: int | None) -> tuple[_Found, bool]:
        while True:
            try:
                return await self._flights.run(key, make)
            except TooLargeToSend as error:
                if max_bytes is not None:
                    raise too_large_to_send(error.size_bytes, max_bytes) from error
                # Another's flight, which ended for want of room in that one's message.

    async def _find_or_encode(
        self, key: bytes, sha256: bytes, media: Media, filled: ReductionSpec, max_bytes: int | None
    ) -> _Found:
        # The look into the caches is part of the flight: else one that landed in between would be flown again.
        hit, get_ms = await self._get(key)
        if hit is not None:
            return _Found(hit.value, hit.place, Timings(cache_get_ms=get_ms))
        async with self._turns.turn(key) as turn:
            if turn.hit is not None:
                return self._from_replica(turn.hit, waited=turn.waited)
            encoded = await self._pipeline.encode(media, sha256, filled, max_bytes)
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
            settled = await self._write(key, value, turn)
        return settled, _since_ms(began)

    async def _write(self, key: bytes, value: VisualTokens, turn: Turn) -> VisualTokens:
        if self._cache.redis is None and self._body_codec.is_lossless:
            self._cache.remember(key, value)
            return value
        settled, body = await off_loop_if_large(value.nbytes, lambda: self._body_codec.settle(value))
        await self._cache.put(key, settled, body, lease=turn.lease)
        return settled

    def _key(self, sha256: bytes, filled: ReductionSpec, tenant: str, sampling: FrameSampling | None) -> bytes:
        return content_key(
            codec_version=CODEC_VERSION,
            fingerprint=self.identity.fingerprint,
            reduction=filled,
            dtype=DTYPE_NAMES[self.identity.dtype],
            tenant=tenant,
            media_sha256=sha256,
            sampling=sampling,
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
        if found.value.frames is not None:
            span.set_attribute(names.ATTR_VIDEO_FRAMES, len(found.value.frames.seconds))
            add_request_fields(frames=len(found.value.frames.seconds))
        add_request_fields(image=short_digest(sha256), place=place, tokens_before=before, tokens_after=after)
        timings = replace(found.timings, total_ms=_since_ms(began))
        return Encoding(value=found.value, place=found.place, sha256=sha256, content_key=key, timings=timings)


def _as_shared(found: _Found) -> _Found:
    """As one sees it who only waited for another's flight."""
    return _Found(found.value, Place.SHARED if found.place is Place.ENCODED else found.place, Timings())


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
