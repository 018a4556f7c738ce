"""What an encoder answers, and when it is believed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from decoder_service.pairing import EncoderDescription
from vscan.cache.place import Place
from vscan.errors import InternalError, InvalidArgument
from vscan.offload import off_loop_if_large
from vscan.v1 import encoder_pb2
from vscan.visual_tokens import VisualTokens

log = logging.getLogger(__name__)

# Where the encoder found what it answers with, as the decoder's caller sees it.
_SEEN_FROM_HERE: dict[int, Place] = {
    Place.ENCODED: Place.ENCODED,
    Place.MEMORY: Place.ENCODER_MEMORY,
    Place.REDIS: Place.REDIS,
    Place.SHARED: Place.SHARED,
}


class EncoderChanged(Exception):
    """A reply came from another encoder than the one described: it was replaced, or is one of several that are unlike."""

    def __init__(self, reply: encoder_pb2.EncodeResponse) -> None:
        super().__init__(f"fingerprint {reply.fingerprint.hex()[:12]}")
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTimings:
    """The encoder's own measurements, in milliseconds."""

    queue_ms: float
    decode_image_ms: float
    vit_ms: float
    reduce_ms: float
    cache_get_ms: float
    cache_put_ms: float
    total_ms: float

    @classmethod
    def from_proto(cls, message: encoder_pb2.EncodeTimings) -> EncodeTimings:
        """From the wire."""
        return cls(**{name: getattr(message, name) for name in cls.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderReply:
    """What the encoder has said about one image; `place` as the decoder's caller sees it."""

    tokens: VisualTokens
    place: Place
    timings: EncodeTimings


async def read_reply(
    reply: encoder_pb2.EncodeResponse, encoder: EncoderDescription, sha256: bytes, *, is_video: bool
) -> EncoderReply:
    """The reply, if its tokens are of the image or video that was asked for, and as the encoder described itself.

    Raises:
        EncoderChanged: the reply is another encoder's.
        InternalError: the reply is not to be used; the log says why.
    """
    if reply.fingerprint != encoder.fingerprint:
        raise EncoderChanged(reply)
    if reply.report.sha256 != sha256:
        raise _fault("an answer for something else")
    try:
        message = reply.visual_tokens
        tokens = await off_loop_if_large(message.ByteSize(), lambda: VisualTokens.from_proto(message))
    except InvalidArgument as error:
        raise _fault(str(error)) from error
    problem = misfit(tokens, encoder, is_video=is_video)
    if problem:
        raise _fault(problem)
    return EncoderReply(
        tokens=tokens,
        place=_SEEN_FROM_HERE.get(reply.report.place, Place.UNSPECIFIED),
        timings=EncodeTimings.from_proto(reply.timings),
    )


def misfit(tokens: VisualTokens, encoder: EncoderDescription, *, is_video: bool) -> str | None:
    """Why tokens are not as the encoder describes its own, or a video's for an image; on one line; None if they are."""
    if tokens.frames is not None and not is_video:
        return "a video's tokens where an image was asked for"
    if tokens.tokens.dtype != encoder.dtype:
        return f"tokens of {tokens.tokens.dtype} where {encoder.dtype} was described"
    if tokens.tokens.shape[1] != encoder.hidden_size:
        return f"tokens {tokens.tokens.shape[1]} wide where {encoder.hidden_size} was described"
    return None


def _fault(what: str) -> InternalError:
    log.error("the encoder's reply is not to be used: %s", what)
    return InternalError("the encoder's reply is not to be used")
