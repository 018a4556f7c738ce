"""The decoder's side of the wire to its encoder: learns who it is, whether the two fit, and asks it for images' tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from decoder_service.encoder_reply import EncoderReply, read_reply
from decoder_service.encoder_retries import EncoderRetries
from decoder_service.pairing import EncoderDescription, Fit
from vscan.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    MissingImages,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VScanError,
)
from vscan.rpc.bearer import Bearer, Metadata
from vscan.rpc.deadlines import Deadline
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.rpc.tenant import DEFAULT_TENANT, ON_BEHALF_OF_KEY
from vscan.specs import ReductionSpec
from vscan.v1 import encoder_pb2, encoder_pb2_grpc
from vscan.wire import reduction_to_proto

log = logging.getLogger(__name__)

# Encoders behind one name are of two releases at most while one takes the place of the other.
_MOST_MET = 4
_LOOKS = 3


class EncoderLink:
    """Keeps up with the encoder behind a channel. Belongs to one event loop.

    Describe is asked again and again: until the encoder is there, and then every `refresh_seconds`, because an encoder that was
    replaced would otherwise go unnoticed for as long as every image is found in a cache. While the encoder is away its last
    description stands, so that cached images can be answered.
    """

    def __init__(
        self,
        channel: RenewedChannel,
        fit: Fit,
        *,
        on_pairing: Callable[[str | None], Awaitable[None]] | None = None,
        refresh_seconds: float = 5.0,
        retry_seconds: float = 0.25,
        describe_seconds: float = 5.0,
        encode_seconds: float = 120.0,
        bearer: Bearer | None = None,
    ) -> None:
        """
        Args:
            on_pairing: told each new answer of `pairing_problem`, for instance to set the service's health.
            refresh_seconds: between two looks at an encoder that is there.
            retry_seconds: between two looks for one that is away.
            describe_seconds: longest wait for one look.
            encode_seconds: longest wait for one image, where its request has no earlier deadline.
            bearer: shows who this decoder is, where a certificate does not.
        """
        self._channel = channel
        self._fit = fit
        self._on_pairing = on_pairing
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._describe_seconds = describe_seconds
        self._encode_seconds = encode_seconds
        self._bearer = bearer or Bearer(None)
        self._retries = EncoderRetries()
        self._description: EncoderDescription | None = None
        self._met: dict[bytes, EncoderDescription] = {}  # by fingerprint, the last one last
        self._problem: str | None = "the encoder has not been reached yet"
        self._away = False
        self._learning = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def description(self) -> EncoderDescription | None:
        """The encoder's last description; None until it was reached."""
        return self._description

    def pairing_problem(self) -> str | None:
        """Why this decoder cannot work with its encoder, on one line; None if it can."""
        return self._problem

    def paired(self, fingerprint: bytes = b"") -> EncoderDescription:
        """The description of an encoder that fits: of this one, if it was met and does. Raises Unavailable if there is none."""
        met = self._met.get(fingerprint)
        if met is not None and self._fit.problem(met) is None:
            return met
        if self._problem is not None or self._description is None:
            raise Unavailable(f"not paired with an encoder: {self._problem}")
        return self._description

    def start(self) -> None:
        """Starts to learn in the background."""
        self._task = asyncio.create_task(self._keep_up())

    async def aclose(self) -> None:
        """Stops learning. The channel is its opener's to close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def learn(self) -> None:
        """Asks Describe once, now; a failure leaves the last description."""
        async with self._learning:
            try:
                with self._stub() as stub:
                    message = await stub.Describe(
                        encoder_pb2.DescribeEncoderRequest(), timeout=self._describe_seconds, metadata=self._bearer.metadata()
                    )
                await self._learned(EncoderDescription.from_proto(message))
            except grpc.aio.AioRpcError as error:
                await self._not_reached(error)
            except InvalidArgument as error:
                await self._set_problem(f"the encoder's description is not understood: {error}")

    async def meet(self, fingerprint: bytes) -> None:
        """Asks Describe until this encoder has answered it, a few times: of several each answers in its turn."""
        for _ in range(_LOOKS):
            if fingerprint in self._met:
                return
            await self.learn()

    async def encode(
        self,
        request: encoder_pb2.EncodeRequest,
        reduction: ReductionSpec,
        *,
        sha256: bytes,
        key: bytes,
        tenant: str,
        encoder: EncoderDescription,
        field: str,
        deadline: Deadline,
    ) -> EncoderReply:
        """Asks for the tokens of one image or video.

        Args:
            request: which; the rest is filled in here.
            sha256: its name.
            key: its tokens' content key, for this tenant.
            tenant: whose it is.
            encoder: the one that must answer.
            field: its place in the decoder's own request.

        Raises:
            EncoderChanged: another encoder answered.
            InvalidArgument: the encoder refused it or the spec; names the field of the decoder's request.
            MissingImages: the digest is unknown.
            ResourceExhausted: the encoder is busy.
            DeadlineExceeded: the caller's time ran out.
            Unavailable: the encoder is away, too slow, or does not let this decoder in.
            InternalError: the encoder failed, or its reply is not to be used.
        """
        request.reduction.CopyFrom(reduction_to_proto(reduction))
        request.reply_form = encoder_pb2.REPLY_FORM_INLINE
        metadata = (*self._bearer.metadata(), *_on_behalf_of(tenant, encoder))
        reply = await self._ask(request, metadata, field, deadline)
        if reply.fingerprint == encoder.fingerprint and reply.content_key != key:
            # One replica of several may be older than the one that described itself: it knows no tenants, or passed over a part
            # of the reduction. Another one may do better.
            log.error("the encoder's reply is not for what it was asked for: it made something else of the request")
            raise Unavailable("the encoder made something else of the request: it may be of an earlier release")
        return await read_reply(reply, encoder, sha256, is_video=request.HasField("video"))

    async def _ask(
        self, request: encoder_pb2.EncodeRequest, metadata: Metadata, field: str, deadline: Deadline
    ) -> encoder_pb2.EncodeResponse:
        failures = 0
        while True:
            try:
                return await self._ask_once(request, metadata, deadline)
            except grpc.aio.AioRpcError as error:
                typed = error_from_rpc(error)
                failures += 1
                # Where even Describe finds nobody there is nobody to ask.
                again = isinstance(typed, Unavailable) and not self._away
                wait_seconds = self._retries.wait_seconds(failures, deadline) if again else None
                if wait_seconds is None:
                    raise _for_the_caller(typed, field, deadline) from error
            await asyncio.sleep(wait_seconds)

    async def _ask_once(
        self, request: encoder_pb2.EncodeRequest, metadata: Metadata, deadline: Deadline
    ) -> encoder_pb2.EncodeResponse:
        left = deadline.left_seconds()
        timeout = self._encode_seconds if left is None else min(left, self._encode_seconds)
        with self._stub() as stub:
            response: encoder_pb2.EncodeResponse = await stub.Encode(request, timeout=timeout, metadata=metadata)
        self._retries.answered()
        return response

    @contextmanager
    def _stub(self) -> Iterator[Any]:
        """Around one call: a stub whose certificates are the newest."""
        with self._channel.use() as channel:
            yield encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]

    async def _keep_up(self) -> None:
        while True:
            try:
                await self.learn()
            except Exception:  # this loop must outlive any fault: without it a replaced encoder goes unnoticed
                log.exception("learning about the encoder failed")
            reached = self._description is not None and not self._away
            await asyncio.sleep(self._refresh_seconds if reached else self._retry_seconds)

    async def _learned(self, description: EncoderDescription) -> None:
        known, self._description, self._away = self._description, description, False
        self._met.pop(description.fingerprint, None)
        self._met[description.fingerprint] = description
        if len(self._met) > _MOST_MET:
            del self._met[next(iter(self._met))]
        if known is None or known.fingerprint != description.fingerprint:
            log.info("the encoder serves %s, fingerprint %s", description.model, description.fingerprint.hex()[:12])
        await self._set_problem(self._fit.problem(description))

    async def _not_reached(self, error: grpc.aio.AioRpcError) -> None:
        if not self._away:
            log.warning("the encoder is away (%s: %s); what is cached goes on", error.code().name, error.details())
        self._away = True
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            await self._set_problem("at the encoder's address is something else")
        elif self._description is None:
            refused = error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            what = "the encoder does not let this decoder in" if refused else "the encoder has not been reached yet"
            await self._set_problem(f"{what} ({error.code().name})")

    async def _set_problem(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            log.log(logging.INFO if problem is None else logging.WARNING, "pairing: %s", problem or "the encoder fits")
            if self._on_pairing is not None:
                await self._on_pairing(problem)


def _on_behalf_of(tenant: str, encoder: EncoderDescription) -> Metadata:
    """For whom this call is, where the encoder takes it from this decoder. One that does not has the tenant `default` alone."""
    if encoder.speaks_for_tenants:
        return ((ON_BEHALF_OF_KEY, tenant),)
    if tenant != DEFAULT_TENANT:
        raise Unavailable("the encoder does not take calls on behalf of tenants from this decoder")
    return ()


def _for_the_caller(error: VScanError, field: str, deadline: Deadline) -> VScanError:
    """What the encoder's error means to the one who asked the decoder."""
    match error:
        case InvalidArgument():
            return InvalidArgument(_in_request(error.field, field), error.problem, limit=error.limit, trace_id=error.trace_id)
        case MissingImages():
            return MissingImages(error.sha256, field=field, trace_id=error.trace_id)
        case DeadlineExceeded() if deadline.passed:
            return DeadlineExceeded(f"{field}: the deadline passed while it was encoded")
        case DeadlineExceeded():
            return Unavailable("the encoder did not answer in time")
        case Unavailable() | Cancelled():
            return Unavailable("the encoder is away")
        case PermissionDenied() | Unauthenticated() | FailedPrecondition():
            log.error("the encoder refuses this decoder: %s", error)
            return Unavailable("the encoder refuses this decoder")
        case ResourceExhausted():
            return ResourceExhausted("the encoder is busy", retry_delay_ms=error.retry_delay_ms, trace_id=error.trace_id)
        case InternalError():
            return InternalError("the encoder failed", trace_id=error.trace_id)
        case _:
            return error


def _in_request(encoder_field: str, field: str) -> str:
    """`image.data` of the encoder's request is `messages[1].parts[0].image.data` of ours; `reduction` is at the top of both.

    A `reply` that is more than this side takes has too many tokens in it, which the reduction can change.
    """
    first, dot, rest = encoder_field.partition(".")
    if first in ("image", "video"):
        return f"{field}{dot}{rest}"
    if first in ("reduction", "reply"):
        return f"reduction{dot}{rest}"
    return f"{field}.{encoder_field}"
