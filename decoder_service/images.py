"""Finds the visual tokens of a request's images: in memory, in Redis, or at the encoder."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import NoOpTracer, Span, Tracer

from decoder_service.encoder_link import EncoderLink
from decoder_service.encoder_reply import EncoderChanged, EncodeTimings, misfit
from decoder_service.pairing import EncoderDescription
from vscan.cache.place import Place
from vscan.cache.tiers import TieredCache
from vscan.content_key import DIGEST_BYTES, content_key
from vscan.errors import InvalidArgument, MissingImages, Unavailable, VScanError
from vscan.offload import off_loop_if_large
from vscan.rpc.deadlines import Deadline
from vscan.specs import ReductionSpec
from vscan.telemetry import names
from vscan.tensors import DTYPE_NAMES
from vscan.visual_tokens import CODEC_VERSION, VisualTokens

NO_DEADLINE = Deadline()
# An encoder is replaced once in a while: one more try finds the new one. In a fleet that disagrees with itself none would.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image as the request has it: its bytes, or the SHA-256 of them."""

    field: str  # path in the request, for errors: "messages[1].parts[0].image"
    data: bytes | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image's tokens, and what finding them took."""

    tokens: VisualTokens
    sha256: bytes
    place: Place
    content_key: bytes  # names these very tokens
    timings: EncodeTimings | None = None  # None if the encoder was not asked
    lookup_ms: float = 0.0  # memory and Redis, for all images of the request together
    encode_ms: float = 0.0  # asking the encoder, the wire included


@dataclass(frozen=True, slots=True)
class _Quest:
    """What all images of one attempt share."""

    encoder: EncoderDescription
    reduction: ReductionSpec  # filled
    tenant: str
    deadline: Deadline

    def key(self, sha256: bytes) -> bytes:
        return content_key(
            codec_version=CODEC_VERSION,
            fingerprint=self.encoder.fingerprint,
            reduction=self.reduction,
            dtype=DTYPE_NAMES[self.encoder.dtype],
            tenant=self.tenant,
            media_sha256=sha256,
        )


class ImageResolver:
    """Belongs to one event loop. `start` it before use; it is ready when `pairing_problem` is None."""

    def __init__(self, link: EncoderLink, cache: TieredCache, *, tracer: Tracer | None = None) -> None:
        self._link = link
        self._cache = cache
        self._tracer = tracer or NoOpTracer()

    @property
    def encoder(self) -> EncoderDescription | None:
        """The encoder's last description: its fingerprint, and the defaults of a reduction. None until it was reached."""
        return self._link.description

    def pairing_problem(self) -> str | None:
        """Why this decoder cannot work with its encoder, on one line; None if it can."""
        return self._link.pairing_problem()

    async def start(self) -> None:
        """Starts to learn about the encoder, in the background; it may come later."""
        self._link.start()

    async def aclose(self) -> None:
        """Stops learning. Channel and cache are their openers' to close."""
        await self._link.aclose()

    async def resolve(
        self, images: Sequence[ImageInput], reduction: ReductionSpec, tenant: str, *, deadline: Deadline = NO_DEADLINE
    ) -> list[ResolvedImage]:
        """The tokens of each image, in order. Equal images are resolved once; all come from one and the same encoder.

        Raises:
            InvalidArgument: an image or the reduction is bad; names the field.
            MissingImages: all the digests that are known nowhere.
            ResourceExhausted: the encoder is busy.
            DeadlineExceeded: the deadline passed.
            Unavailable: the encoder is needed and away, or does not fit.
        """
        with self._tracer.start_as_current_span(names.SPAN_RESOLVE_IMAGES) as span:
            digests = await asyncio.gather(*(_digest(image) for image in images))
            for _ in range(ATTEMPTS):
                encoder = self._link.paired()
                quest = _Quest(encoder, reduction.filled_from(encoder.defaults), tenant, deadline)
                try:
                    resolved = await self._attempt(quest, images, digests)
                except EncoderChanged:
                    await self._link.learn()
                    continue
                _describe(span, resolved)
                return resolved
            raise Unavailable("the encoder is being replaced")

    async def _attempt(self, quest: _Quest, images: Sequence[ImageInput], digests: Sequence[bytes]) -> list[ResolvedImage]:
        wanted = _distinct(images, digests)
        found = await self._look_up(quest, list(wanted))
        lacking = [digest for digest in wanted if digest not in found]
        if lacking:
            quest.deadline.check("the images were found")
            found.update(await self._ask_encoder(quest, {digest: wanted[digest] for digest in lacking}))
        first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
        return [_repeated(found[d], again=first[d] != index) for index, d in enumerate(digests)]

    async def _look_up(self, quest: _Quest, digests: Sequence[bytes]) -> dict[bytes, ResolvedImage]:
        started = time.perf_counter()
        hits = await self._cache.get_many([quest.key(digest) for digest in digests])
        lookup_ms = _ms_since(started)
        found = {}
        for digest, hit in zip(digests, hits, strict=True):
            if hit is not None and misfit(hit.value, quest.encoder) is None:
                found[digest] = ResolvedImage(hit.value, digest, hit.place, quest.key(digest), lookup_ms=lookup_ms)
        return found

    async def _ask_encoder(self, quest: _Quest, wanted: dict[bytes, ImageInput]) -> dict[bytes, ResolvedImage]:
        """All at once. A missing digest waits for the others, so that all can be named; any other error ends the rest."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {digest: group.create_task(self._encode(quest, digest, image)) for digest, image in wanted.items()}
        except BaseExceptionGroup as errors:
            raise _foremost(errors) from None
        answers = {digest: task.result() for digest, task in tasks.items()}
        missing = [digest for digest, answer in answers.items() if answer is None]
        if missing:
            raise MissingImages(missing, field=wanted[missing[0]].field)
        return {digest: answer for digest, answer in answers.items() if answer is not None}

    async def _encode(self, quest: _Quest, digest: bytes, image: ImageInput) -> ResolvedImage | None:
        started = time.perf_counter()
        try:
            reply = await self._link.encode(
                digest, image.data, quest.reduction, encoder=quest.encoder, field=image.field, deadline=quest.deadline
            )
        except MissingImages:
            return None
        self._cache.remember(quest.key(digest), reply.tokens)
        key = quest.key(digest)
        return ResolvedImage(reply.tokens, digest, reply.place, key, timings=reply.timings, encode_ms=_ms_since(started))


async def _digest(image: ImageInput) -> bytes:
    data = image.data
    if data is not None:
        return await off_loop_if_large(len(data), lambda: hashlib.sha256(data).digest())
    if image.sha256 is None:
        raise InvalidArgument(image.field, "neither bytes nor a digest")
    if len(image.sha256) != DIGEST_BYTES:
        raise InvalidArgument(f"{image.field}.sha256", f"{len(image.sha256)} bytes", limit=f"{DIGEST_BYTES} bytes")
    return image.sha256


def _distinct(images: Sequence[ImageInput], digests: Sequence[bytes]) -> dict[bytes, ImageInput]:
    """Each image once: its first mention, but rather one that brings the bytes."""
    wanted: dict[bytes, ImageInput] = {}
    for digest, image in zip(digests, images, strict=True):
        if digest not in wanted or (wanted[digest].data is None and image.data is not None):
            wanted[digest] = image
    return wanted


def _repeated(image: ResolvedImage, *, again: bool) -> ResolvedImage:
    """The second mention of an image that was encoded for the first did not make the vision transformer run."""
    return replace(image, place=Place.SHARED) if again and image.place is Place.ENCODED else image


def _foremost(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error for the caller: a bad field, which only the caller can mend, before all others."""
    bad = [error for error in errors.exceptions if isinstance(error, InvalidArgument)]
    typed = [error for error in errors.exceptions if isinstance(error, VScanError)]
    return next(iter(bad or typed or errors.exceptions))


def _describe(span: Span, images: Sequence[ResolvedImage]) -> None:
    span.set_attribute(names.ATTR_IMAGES, len(images))
    span.set_attribute(names.ATTR_PLACES, [image.place.name.lower() for image in images])


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
