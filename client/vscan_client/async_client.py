"""The client for programs that run an event loop. The work is in `_core.py`; here are the verbs and the sending."""

# ruff: noqa: ASYNC109  a call's timeout travels to the server, which asyncio.timeout() cannot do
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message as Request
from opentelemetry import trace

from vscan.errors import Cancelled, InvalidArgument
from vscan.rpc.error_details import error_from_rpc
from vscan.specs import ReductionSpec
from vscan.telemetry.names import TRACER
from vscan.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc
from vscan_client import _messages
from vscan_client._channel import open_sdk_channel
from vscan_client._core import Core, Exchange, Question, RawPrompt
from vscan_client.answer import Answer, Place
from vscan_client.async_stream import AsyncAnswerStream, GenerateCall, raise_if_closed
from vscan_client.content import Message, VisualLike, as_visuals
from vscan_client.description import Description
from vscan_client.encoded import Encoded
from vscan_client.options import AskOptions, Retry, Timeout, Tls

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
        server: address of the decoder, `host:port`.
        encoder: address of the encoder, for `encode` and `lookup`.
        tls: encrypt; `None` is plaintext, refused beyond loopback unless `insecure`.
        insecure: allow plaintext beyond loopback, where the network protects itself.
        timeout: how long to wait.
        retry: when to try again.
        remembered_images: how many images and videos to remember as sent; 0 always sends bytes.
        tracer_provider: OpenTelemetry's; `None`: the global one.
    """

    def __init__(
        self,
        *,
        server: str = DEFAULT_SERVER,
        encoder: str | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        remembered_images: int = 4096,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._timeout = timeout or Timeout()
        self._core = Core(timeout=self._timeout, retry=retry or Retry(), remembered_images=remembered_images)
        self._tracer = trace.get_tracer(TRACER, tracer_provider=tracer_provider)
        self._tracer_provider = tracer_provider
        self._server, self._encoder = server, encoder
        self._tls, self._insecure = tls, insecure
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closed = False

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

        async def prepare() -> Question:
            return Question.about(await asyncio.to_thread(as_visuals, images), question, options)

        return self._stream(prepare)

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[AskOptions]) -> AsyncAnswerStream:
        """`chat`, event by event."""

        async def prepare() -> Question:
            return Question(tuple(messages), options)

        return self._stream(prepare)

    def stream_raw(
        self, prompt: str, images: VisualLike | Sequence[VisualLike] = (), **options: Unpack[AskOptions]
    ) -> AsyncAnswerStream:
        """`raw`, event by event."""

        async def prepare() -> Question:
            return Question(RawPrompt.about(await asyncio.to_thread(as_visuals, images), prompt), options)

        return self._stream(prepare)

    async def encode(
        self, image: VisualLike, *, reduction: ReductionSpec | None = None, tokens: bool = False, timeout: float | None = None
    ) -> Encoded:
        """Has the encoder make and cache the tokens of an image or video before anybody asks; `tokens`: they come back too."""
        stub = self._encoder_stub()
        (loaded,) = await asyncio.to_thread(as_visuals, image)
        exchange = self._core.exchange([loaded], reduction, timeout)
        reply: encoder_pb2.EncodeResponse = await self._unary(
            exchange,
            lambda: _messages.encode_request(exchange.form(loaded), reduction, tokens=tokens),
            stub.Encode,
        )
        return _messages.encoded(reply)

    async def lookup(
        self, images: VisualLike | Sequence[VisualLike], *, reduction: ReductionSpec | None = None, timeout: float | None = None
    ) -> tuple[Place | None, ...]:
        """Where the tokens of images, or of videos of one sampling, are cached, `None` for nowhere; moves and makes nothing."""
        stub = self._encoder_stub()
        loaded = await asyncio.to_thread(as_visuals, images)
        exchange = self._core.exchange((), None, timeout)
        return _messages.places(await self._unary(exchange, lambda: _messages.lookup_request(loaded, reduction), stub.Lookup))

    async def describe(self, *, timeout: float | None = None) -> Description:
        """The deployment's model, limits and defaults."""
        stub = self._decoder_stub()
        decoder = await self._unary(self._core.exchange((), None, timeout), _messages.describe_decoder_request, stub.Describe)
        described = _messages.decoder_description(decoder)
        if self._encoder is None:
            return Description(decoder=described)
        encoder_stub = self._encoder_stub()
        exchange = self._core.exchange((), None, timeout)
        encoder = await self._unary(exchange, _messages.describe_encoder_request, encoder_stub.Describe)
        return Description(decoder=described, encoder=_messages.encoder_description(encoder))

    async def aclose(self) -> None:
        """Ends what is under way (it gets `Cancelled`) and the connections."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _stream(self, prepare: Callable[[], Awaitable[Question]]) -> AsyncAnswerStream:
        def generate(request: decoder_pb2.GenerateRequest, timeout_s: float | None) -> GenerateCall:
            return self._decoder_stub().Generate(request, timeout=timeout_s)

        return AsyncAnswerStream(
            prepare, core=self._core, tracer=self._tracer, generate=generate, is_closed=lambda: self._closed
        )

    async def _unary(
        self, exchange: Exchange, make_request: Callable[[], Request], method: Callable[..., Awaitable[Reply]]
    ) -> Reply:
        while True:
            request = make_request()
            left_s = exchange.sending(request.ByteSize())
            try:
                reply = await method(request, timeout=left_s)
            except grpc.RpcError as error:
                wait_s = exchange.failed(error_from_rpc(error))
            except asyncio.CancelledError:
                raise_if_closed(self._closed)
                raise
            else:
                exchange.accepted()
                return reply
            await asyncio.sleep(wait_s)

    def _decoder_stub(self) -> decoder_pb2_grpc.DecoderStub:
        return decoder_pb2_grpc.DecoderStub(self._channel(self._server))  # type: ignore[no-untyped-call]

    def _encoder_stub(self) -> encoder_pb2_grpc.VisionEncoderStub:
        if self._encoder is None:
            raise InvalidArgument("encoder", "this client was not given the encoder's address")
        return encoder_pb2_grpc.VisionEncoderStub(self._channel(self._encoder))  # type: ignore[no-untyped-call]

    def _channel(self, target: str) -> grpc.aio.Channel:
        """Opened at its first use, since it belongs to the event loop that runs then."""
        if self._closed:
            raise Cancelled("the client is closed")
        if target not in self._channels:
            self._channels[target] = open_sdk_channel(
                target,
                tls=self._tls,
                insecure=self._insecure,
                connect_s=self._timeout.connect,
                tracer_provider=self._tracer_provider,
            )
        return self._channels[target]


async def _whole(stream: AsyncAnswerStream) -> Answer:
    async with stream:
        async for _ in stream:
            pass
    return stream.answer
