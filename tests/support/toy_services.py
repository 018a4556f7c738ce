"""Small real servicers of the generated base classes, and servers that carry them: what the tests of `vscan.rpc` call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from vscan.rpc.channel import open_channel
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc

DECODER = "vscan.v1.Decoder"
ENCODER = "vscan.v1.VisionEncoder"


class ToyDecoder(decoder_pb2_grpc.DecoderServicer):
    """Answers with the raw prompt, word by word. `before_word` is called before each word and may raise or wait."""

    def __init__(self, before_word: Callable[[str], Any] | None = None, encoder: Any = None, on_call: Any = None) -> None:
        self._before_word = before_word
        self._encoder = encoder
        self._on_call = on_call
        self.entered = asyncio.Event()  # a call is being served
        self.ended: list[str] = []  # how each call ended: "done", or the exception's class

    async def Generate(self, request: decoder_pb2.GenerateRequest, context: Any) -> AsyncIterator[decoder_pb2.GenerateEvent]:
        """Started, the words, Finished."""
        try:
            yield decoder_pb2.GenerateEvent(started=decoder_pb2.Started(request_id="toy"))
            self.entered.set()
            if self._on_call is not None:
                self._on_call(context)
            if self._encoder is not None:
                await self._encoder.Encode(encoder_pb2.EncodeRequest())
            for word in request.raw.text.split():
                if self._before_word is not None:
                    await self._before_word(word)
                yield decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(text=word))
            yield decoder_pb2.GenerateEvent(finished=decoder_pb2.Finished())
            self.ended.append("done")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def Describe(self, request: decoder_pb2.DescribeDecoderRequest, context: Any) -> decoder_pb2.DescribeDecoderResponse:
        """A name; `before_word` is called with it."""
        self.entered.set()
        if self._on_call is not None:
            self._on_call(context)
        if self._before_word is not None:
            await self._before_word("Describe")
        return decoder_pb2.DescribeDecoderResponse(model="toy")


class ToyEncoder(encoder_pb2_grpc.VisionEncoderServicer):
    """Encodes nothing, within a span."""

    def __init__(self, telemetry: Telemetry | None = None, before_reply: Callable[[], Any] | None = None) -> None:
        self._telemetry = telemetry or Telemetry()
        self._before_reply = before_reply
        self.entered = asyncio.Event()
        self.ended: list[str] = []

    async def Encode(self, request: encoder_pb2.EncodeRequest, context: Any) -> encoder_pb2.EncodeResponse:
        """An empty reply."""
        self.entered.set()
        try:
            with self._telemetry.tracer.start_as_current_span("vit"):
                if self._before_reply is not None:
                    await self._before_reply()
            self.ended.append("done")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        return encoder_pb2.EncodeResponse()


@asynccontextmanager
async def serving_decoder(
    servicer: ToyDecoder, settings: RpcSettings | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[tuple[RpcServer, str]]:
    """A ready server with that decoder, and its address."""
    server = RpcServer(settings or RpcSettings(drain_seconds=5), services=[DECODER], telemetry=telemetry)
    decoder_pb2_grpc.add_DecoderServicer_to_server(servicer, server.server)  # type: ignore[no-untyped-call]
    async with _started(server, DECODER) as address:
        yield server, address


@asynccontextmanager
async def serving_encoder(servicer: ToyEncoder, telemetry: Telemetry | None = None) -> AsyncIterator[tuple[RpcServer, str]]:
    """A ready server with that encoder, and its address."""
    server = RpcServer(RpcSettings(drain_seconds=5), services=[ENCODER], telemetry=telemetry)
    encoder_pb2_grpc.add_VisionEncoderServicer_to_server(servicer, server.server)  # type: ignore[no-untyped-call]
    async with _started(server, ENCODER) as address:
        yield server, address


@asynccontextmanager
async def _started(server: RpcServer, service: str) -> AsyncIterator[str]:
    address = await server.start()
    await server.set_ready(service, True)
    try:
        yield address
    finally:
        await server.stop()


@asynccontextmanager
async def decoder_stub(address: str, telemetry: Telemetry | None = None) -> AsyncIterator[decoder_pb2_grpc.DecoderStub]:
    """A stub over a channel of `vscan.rpc.channel`."""
    async with open_channel(address, tracer_provider=(telemetry or Telemetry()).tracer_provider) as channel:
        yield decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]


def raw(text: str) -> decoder_pb2.GenerateRequest:
    """A request of a raw prompt."""
    return decoder_pb2.GenerateRequest(raw=decoder_pb2.RawPrompt(text=text))


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """The error in which a call, unary or streamed, ends."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call did not fail")
