"""Finds the visual tokens of a request's images and videos: in memory, in Redis, or at the encoder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import NoOpTracer, Span, Tracer

from decoder_service.encoder_link import EncoderLink
from decoder_service.encoder_reply import EncoderChanged, EncodeTimings, misfit, read_reply
from decoder_service.media import MediaInput
from decoder_service.pairing import EncoderDescription
from vscan.cache.place import Place
from vscan.cache.tiers import TieredCache
from vscan.content_key import content_key
from vscan.errors import InvalidArgument, MissingImages, Unavailable, VScanError
from vscan.rpc.deadlines import Deadline
from vscan.specs import FrameSampling, ReductionSpec
from vscan.telemetry import names
from vscan.tensors import DTYPE_NAMES
from vscan.v1 import encoder_pb2
from vscan.visual_tokens import CODEC_VERSION, VisualTokens

NO_DEADLINE = Deadline()
# An encoder is replaced once in a while: one more try finds the new one. While those behind one name are of two releases, each
# try adds to what one of the two has answered.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """The tokens of an image or a video, and what finding them took."""

    tokens: VisualTokens
    sha256: bytes
    place: Place
    content_key: bytes  # names these very tokens
    timings: EncodeTimings | None = None  # None if the encoder was not asked
    lookup_ms: float = 0.0  # memory and Redis, for all of the request together
    encode_ms: float = 0.0  # asking the encoder, the wire included


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One image or video of an attempt. Equal keys are equal work."""

    media: MediaInput
    sha256: bytes
    sampling: FrameSampling | None  # filled; None of an image
    key: bytes


@dataclass(frozen=True, slots=True)
class _Quest:
    """What all of one attempt share."""

    encoder: EncoderDescription
    reduction: ReductionSpec  # filled
    tenant: str
    deadline: Deadline

    def wanted(self, media: MediaInput, sha256: bytes) -> _Wanted:
        sampling = media.sampling_at(self.encoder)
        return _Wanted(media, sha256, sampling, self._key(sha256, sampling))

    def _key(self, sha256: bytes, sampling: FrameSampling | None) -> bytes:
        return content_key(
            codec_version=CODEC_VERSION,
            fingerprint=self.encoder.fingerprint,
            reduction=self.reduction,
            dtype=DTYPE_NAMES[self.encoder.dtype],
            tenant=self.tenant,
            media_sha256=sha256,
            sampling=sampling,
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
        self, media: Sequence[MediaInput], reduction: ReductionSpec, tenant: str, *, deadline: Deadline = NO_DEADLINE
    ) -> list[ResolvedImage]:
        """The tokens of each image and video, in order. Equal ones are resolved once; all come from one and the same encoder.

        Raises:
            InvalidArgument: an image, a video or the reduction is bad; names the field.
            MissingImages: all the digests that are known nowhere.
            ResourceExhausted: the encoder is busy.
            DeadlineExceeded: the deadline passed.
            Unavailable: the encoder is needed and away, or does not fit.
        """
        with self._tracer.start_as_current_span(names.SPAN_RESOLVE_IMAGES) as span:
            digests = await asyncio.gather(*(one.digest() for one in media))
            fingerprint, answered = b"", dict[bytes, ResolvedImage]()
            for _ in range(ATTEMPTS):
                quest = self._quest(fingerprint, reduction, tenant, deadline)
                try:
                    wanted = [quest.wanted(*one) for one in zip(media, digests, strict=True)]
                    resolved = await self._attempt(quest, wanted, answered)
                except EncoderChanged as changed:
                    await self._link.meet(changed.reply.fingerprint)
                    fingerprint = fingerprint or changed.reply.fingerprint
                    theirs = self._quest(changed.reply.fingerprint, reduction, tenant, deadline)
                    others = [theirs.wanted(*one) for one in zip(media, digests, strict=True)]
                    answered.update(await self._take(changed.reply, theirs.encoder, others))
                    continue
                _describe(span, resolved)
                return resolved
            raise Unavailable("the encoder is being replaced")

    def _quest(self, fingerprint: bytes, reduction: ReductionSpec, tenant: str, deadline: Deadline) -> _Quest:
        encoder = self._link.paired(fingerprint)
        return _Quest(encoder, reduction.filled_from(encoder.defaults), tenant, deadline)

    async def _take(
        self, reply: encoder_pb2.EncodeResponse, encoder: EncoderDescription, wanted: Sequence[_Wanted]
    ) -> dict[bytes, ResolvedImage]:
        """What another encoder than the one that was meant has answered, by its name there; nothing if `encoder` is not it."""
        for one in wanted:
            if one.key == reply.content_key and encoder.fingerprint == reply.fingerprint:
                told = await read_reply(reply, encoder, one.sha256, is_video=one.sampling is not None)
                self._cache.remember(one.key, told.tokens)
                return {one.key: ResolvedImage(told.tokens, one.sha256, told.place, one.key, timings=told.timings)}
        return {}

    async def _attempt(
        self, quest: _Quest, wanted: Sequence[_Wanted], answered: Mapping[bytes, ResolvedImage]
    ) -> list[ResolvedImage]:
        distinct = _distinct(wanted)
        found = await self._look_up(quest, distinct)
        found.update({key: answered[key] for key in distinct if key in answered})
        lacking = {key: one for key, one in distinct.items() if key not in found}
        if lacking:
            quest.deadline.check("the images were found")
            found.update(await self._ask_encoder(quest, lacking))
        first = {one.key: index for index, one in reversed(list(enumerate(wanted)))}
        return [_repeated(found[one.key], again=first[one.key] != index) for index, one in enumerate(wanted)]

    async def _look_up(self, quest: _Quest, wanted: Mapping[bytes, _Wanted]) -> dict[bytes, ResolvedImage]:
        started = time.perf_counter()
        hits = await self._cache.get_many(list(wanted))
        lookup_ms = _ms_since(started)
        found = {}
        for (key, one), hit in zip(wanted.items(), hits, strict=True):
            if hit is not None and misfit(hit.value, quest.encoder, is_video=one.sampling is not None) is None:
                found[key] = ResolvedImage(hit.value, one.sha256, hit.place, key, lookup_ms=lookup_ms)
        return found

    async def _ask_encoder(self, quest: _Quest, wanted: Mapping[bytes, _Wanted]) -> dict[bytes, ResolvedImage]:
        """All at once. A missing digest waits for the others, so that all can be named; any other error ends the rest."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {key: group.create_task(self._encode(quest, one)) for key, one in wanted.items()}
        except BaseExceptionGroup as errors:
            raise _foremost(errors) from None
        answers = {key: task.result() for key, task in tasks.items()}
        missing = [wanted[key] for key, answer in answers.items() if answer is None]
        if missing:
            raise MissingImages(list(dict.fromkeys(one.sha256 for one in missing)), field=missing[0].media.field)
        return {key: answer for key, answer in answers.items() if answer is not None}

    async def _encode(self, quest: _Quest, wanted: _Wanted) -> ResolvedImage | None:
        started = time.perf_counter()
        try:
            reply = await self._link.encode(
                wanted.media.encode_request(wanted.sha256, wanted.sampling),
                quest.reduction,
                sha256=wanted.sha256,
                key=wanted.key,
                tenant=quest.tenant,
                encoder=quest.encoder,
                field=wanted.media.field,
                deadline=quest.deadline,
            )
        except MissingImages:
            return None
        self._cache.remember(wanted.key, reply.tokens)
        return ResolvedImage(
            reply.tokens, wanted.sha256, reply.place, wanted.key, timings=reply.timings, encode_ms=_ms_since(started)
        )


def _distinct(wanted: Sequence[_Wanted]) -> dict[bytes, _Wanted]:
    """Each by its key: its first mention, but rather one that brings more than a name."""
    distinct: dict[bytes, _Wanted] = {}
    for one in wanted:
        if one.key not in distinct or (one.media.has_content and not distinct[one.key].media.has_content):
            distinct[one.key] = one
    return distinct


def _repeated(image: ResolvedImage, *, again: bool) -> ResolvedImage:
    """The second mention of an image that was encoded for the first did not make the vision transformer run."""
    return replace(image, place=Place.SHARED) if again and image.place is Place.ENCODED else image


def _foremost(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error for the caller: a bad field, which only the caller can mend, before all others."""
    bad = [error for error in errors.exceptions if isinstance(error, InvalidArgument)]
    typed = [error for error in errors.exceptions if isinstance(error, VScanError)]
    return next(iter(bad or typed or errors.exceptions))


def _describe(span: Span, images: Sequence[ResolvedImage]) -> None:
    videos = sum(image.tokens.frames is not None for image in images)
    span.set_attributes({names.ATTR_IMAGES: len(images) - videos, names.ATTR_VIDEOS: videos})
    span.set_attribute(names.ATTR_PLACES, [image.place.name.lower() for image in images])


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
