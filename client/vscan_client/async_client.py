"""The client for programs that run an event loop. The work is in `_core.py`; here are the verbs and the sending."""

# ruff: noqa: ASYNC109  a call's timeout travels to the server, which asyncio.timeout() cannot do
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message as Request
from opentelemetry import trace

from vscan.errors import InvalidArgument, VScanError
from vscan.rpc.channel import refuse_open_plaintext
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.specs import ReductionSpec
from vscan.telemetry.names import TRACER
from vscan.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc
from vscan_client import _messages
from vscan_client._affinity import affinity_metadata
from vscan_client._channel import open_sdk_channel
from vscan_client._core import Core, Exchange, Question, RawPrompt
from vscan_client._replicas import Replicas, raise_if_closed
from vscan_client._resolving import Endpoint, parse_servers
from vscan_client._token import bearer_of
from vscan_client.answer import Answer, Place
from vscan_client.async_stream import AsyncAnswerStream
from vscan_client.content import Message, VisualLike, as_visuals
from vscan_client.description import Description, EncoderDescription
from vscan_client.encoded import Encoded
from vscan_client.options import Affinity, AskOptions, Retry, ServerLike, Timeout, Tls, TokenLike, refuse_unknown

Reply = TypeVar("Reply")
DEFAULT_SERVER = "127.0.0.1:7070"


class AsyncClient:
    """Asks a deployment questions about images and videos.

        async with AsyncClient(server="127.0.0.1:7070") as client:
            answer = await client.ask("photo.jpg", "What colour is the car?")

    Where an image is wanted a video may stand, and bytes or files that plainly are videos are taken as such (a GIF is an image
    unless it is made a `Video`). What was sent once goes as its digest (32 bytes) the next time; the client sends the bytes by
    itself if the server has lost it. Errors are those of `vscan.errors`. A client belongs to one event loop; many calls may run
    at once.

    Args:
        server: address of the decoder, `host:port`; several, or `dns:///name:port` for all addresses of a name: then requests
            that begin with the same image or video go to the same one, and on to the next where that is busy or away.
        encoder: address of the encoder, for `encode` and `lookup`; or several, in the same way.
        tls: encrypt; `None` is plaintext, refused beyond loopback unless `insecure`.
        insecure: allow plaintext beyond loopback, where the network protects itself.
        token: the bearer token that shows who calls, or a function that gives one for each try (it must not block). It is sent
            over TLS, on this machine, or where `insecure` allows plaintext; nowhere else.
        token_file: a file with the token instead; read again when it changes.
        timeout: how long to wait.
        retry: when to try again.
        affinity: how calls are spread over several endpoints.
        remembered_images: how many images and videos to remember as sent; 0 always sends bytes.
        tracer_provider: OpenTelemetry's; `None`: the global one.
    """

    def __init__(
        self,
        *,
        server: ServerLike = DEFAULT_SERVER,
        encoder: ServerLike | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        token: TokenLike | None = None,
        token_file: Path | None = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        affinity: Affinity | None = None,
        remembered_images: int = 4096,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._timeout = timeout or Timeout()
        self._make_core = partial(Core, timeout=self._timeout, retry=retry or Retry(), remembered_images=remembered_images)
        self._core = self._make_core()
        self._tracer = trace.get_tracer(TRACER, tracer_provider=tracer_provider)
        self._tracer_provider = tracer_provider
        self._tls, self._insecure = tls, insecure
        self._bearer = bearer_of(token, token_file)
        spread = affinity or Affinity()
        self._decoders = self._replicas(server, "server", spread)
        self._encoder = None if encoder is None else self._replicas(encoder, "encoder", spread)

    def with_token(self, token: TokenLike) -> AsyncClient:
        """The same deployment as another caller: for a program that passes on the questions of many, each with a token.

        It shares the connections, and what is known of the replicas. What was sent and what may still be retried is its own,
        since what one caller has sent the server does not know from another. Closing either closes both.

        Raises:
            InvalidArgument: this is no bearer token.
        """
        other = copy(self)
        other._core = self._make_core()
        other._bearer = bearer_of(token, None)
        return other

    async def ask(self, images: VisualLike | Sequence[VisualLike], question: str, **options: Unpack[AskOptions]) -> Answer:
        """Asks about one image or video or several, and waits for the whole answer."""
        return await _whole(self.stream(images, question, **options))

    async def chat(self, messages: Sequence[Message], **options: Unpack[AskOptions]) -> Answer:
        """Answers the last message of a conversation, which is the user's."""
        return await _whole(self.stream_chat(messages, **options))

    async def raw(self, prompt: str, images: VisualLike | Sequence[VisualLike] = (), **options: Unpack[AskOptions]) -> Answer:
        """Goes on with a prompt in the model's own syntax: a placeholder for each image or video. Servers may refuse it."""
        return await _whole(self.stream_raw(prompt, images, **options))

    def stream(
        self, images: VisualLike | Sequence[VisualLike], question: str, **options: Unpack[AskOptions]
    ) -> AsyncAnswerStream:
        """`ask`, event by event."""
        refuse_unknown("ask", options)

        async def prepare() -> Question:
            return Question.about(await asyncio.to_thread(as_visuals, images), question, options)

        return self._stream(prepare)

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[AskOptions]) -> AsyncAnswerStream:
        """`chat`, event by event."""
        refuse_unknown("chat", options)

        async def prepare() -> Question:
            return Question(tuple(messages), options)

        return self._stream(prepare)

    def stream_raw(
        self, prompt: str, images: VisualLike | Sequence[VisualLike] = (), **options: Unpack[AskOptions]
    ) -> AsyncAnswerStream:
        """`raw`, event by event."""
        refuse_unknown("raw", options)

        async def prepare() -> Question:
            return Question(RawPrompt.about(await asyncio.to_thread(as_visuals, images), prompt), options)

        return self._stream(prepare)

    async def encode(
        self, image: VisualLike, *, reduction: ReductionSpec | None = None, tokens: bool = False, timeout: float | None = None
    ) -> Encoded:
        """Has the encoder make and cache the tokens of an image or video before anybody asks; `tokens`: they come back too."""
        encoders = self._encoders()
        (loaded,) = await asyncio.to_thread(as_visuals, image)
        exchange = self._core.exchange(encoders.route([loaded]), [loaded], reduction, timeout)
        reply: encoder_pb2.EncodeResponse = await self._unary(
            encoders,
            exchange,
            lambda: _messages.encode_request(exchange.form(loaded), reduction, tokens=tokens),
            lambda channel: _encoder_stub(channel).Encode,
        )
        return _messages.encoded(reply)

    async def lookup(
        self, images: VisualLike | Sequence[VisualLike], *, reduction: ReductionSpec | None = None, timeout: float | None = None
    ) -> tuple[Place | None, ...]:
        """Where the tokens of images, or of videos of one sampling, are cached, `None` for nowhere; moves and makes nothing.

        Of several encoders one is asked, that of the first image: it sees the shared cache and its own memory.
        """
        encoders = self._encoders()
        loaded = await asyncio.to_thread(as_visuals, images)
        exchange = self._core.exchange(encoders.route(loaded), (), None, timeout)
        reply: encoder_pb2.LookupResponse = await self._unary(
            encoders,
            exchange,
            lambda: _messages.lookup_request(loaded, reduction),
            lambda channel: _encoder_stub(channel).Lookup,
        )
        return _messages.places(reply)

    async def describe(self, *, timeout: float | None = None) -> Description:
        """The deployment's model, limits and defaults."""
        reply: decoder_pb2.DescribeDecoderResponse = await self._unary(
            self._decoders,
            self._core.exchange(self._decoders.route(), (), None, timeout),
            _messages.describe_decoder_request,
            lambda channel: _decoder_stub(channel).Describe,
        )
        encoder = None if self._encoder is None else await self.describe_encoder(timeout=timeout)
        return Description(decoder=_messages.decoder_description(reply), encoder=encoder)

    async def describe_encoder(self, *, timeout: float | None = None) -> EncoderDescription:
        """The encoder alone: its model, limits and defaults."""
        encoders = self._encoders()
        reply: encoder_pb2.DescribeEncoderResponse = await self._unary(
            encoders,
            self._core.exchange(encoders.route(), (), None, timeout),
            _messages.describe_encoder_request,
            lambda channel: _encoder_stub(channel).Describe,
        )
        return _messages.encoder_description(reply)

    async def aclose(self) -> None:
        """Ends what is under way (it gets `Cancelled`) and the connections."""
        await self._decoders.aclose()
        if self._encoder is not None:
            await self._encoder.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _stream(self, prepare: Callable[[], Awaitable[Question]]) -> AsyncAnswerStream:
        return AsyncAnswerStream(
            prepare,
            core=self._core,
            tracer=self._tracer,
            replicas=self._decoders,
            bearer=self._bearer,
            is_closed=lambda: self._decoders.is_closed,
        )

    async def _unary(
        self,
        replicas: Replicas,
        exchange: Exchange,
        make_request: Callable[[], Request],
        method_of: Callable[[grpc.aio.Channel], Callable[..., Awaitable[Reply]]],
    ) -> Reply:
        while True:
            try:
                await replicas.ready(exchange.left_s())
                with replicas.endpoint(exchange.route) as channel:
                    reply = await self._one_try(method_of(channel), exchange, make_request())
            except VScanError as error:
                wait_s = exchange.failed(error)
            else:
                exchange.accepted()
                return reply
            try:
                await replicas.pause(wait_s)
            except asyncio.CancelledError:
                raise_if_closed(self._decoders.is_closed)
                raise

    async def _one_try(self, method: Callable[..., Awaitable[Reply]], exchange: Exchange, request: Request) -> Reply:
        metadata = (*affinity_metadata(exchange.route.key), *self._bearer.metadata())
        left_s = exchange.sending(request.ByteSize())
        try:
            return await method(request, timeout=left_s, metadata=metadata)
        except grpc.RpcError as error:
            raise_if_closed(self._decoders.is_closed)
            raise error_from_rpc(error) from error
        except asyncio.CancelledError:
            raise_if_closed(self._decoders.is_closed)
            raise

    def _encoders(self) -> Replicas:
        if self._encoder is None:
            raise InvalidArgument("encoder", "this client was not given the encoder's address")
        return self._encoder

    def _replicas(self, server: ServerLike, field: str, affinity: Affinity) -> Replicas:
        return Replicas(
            parse_servers(server, field),
            affinity,
            connect=self._open_channel,
            check=self._check_target,
            look_up_s=self._timeout.connect,
        )

    def _open_channel(self, endpoint: Endpoint) -> RenewedChannel:
        return open_sdk_channel(
            endpoint,
            tls=self._tls,
            insecure=self._insecure,
            connect_s=self._timeout.connect,
            tracer_provider=self._tracer_provider,
        )

    def _check_target(self, target: str) -> None:
        if self._tls is None:
            refuse_open_plaintext(target, insecure=self._insecure)


def _decoder_stub(channel: grpc.aio.Channel) -> decoder_pb2_grpc.DecoderStub:
    return decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]


def _encoder_stub(channel: grpc.aio.Channel) -> encoder_pb2_grpc.VisionEncoderStub:
    return encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]


async def _whole(stream: AsyncAnswerStream) -> Answer:
    async with stream:
        async for _ in stream:
            pass
    return stream.answer
