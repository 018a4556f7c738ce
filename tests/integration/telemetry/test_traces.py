"""Traces across services: a real collector gets the spans, and those of one request are one tree."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.otlp_collector import CollectedSpan, Node, OtlpCollector, one_tree
from tests.support.toy_services import ToyDecoder, ToyEncoder, decoder_stub, failure, raw, serving_decoder, serving_encoder
from tests.support.until import until
from vscan.errors import InvalidArgument
from vscan.rpc.channel import open_channel
from vscan.rpc.server import RpcServer
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry, setup_tracing
from vscan.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2_grpc

GENERATE = "/vscan.v1.Decoder/Generate"
ENCODE = "/vscan.v1.VisionEncoder/Encode"


@dataclass(frozen=True)
class House:
    """A client, a decoder and an encoder, each with providers of its own."""

    collector: OtlpCollector
    client: Telemetry
    stub: decoder_pb2_grpc.DecoderStub
    decoder: ToyDecoder
    encoder: ToyEncoder
    decoder_server: RpcServer
    encoder_server: RpcServer
    telemetries: tuple[Telemetry, ...]

    async def spans(self) -> list[CollectedSpan]:
        """Everything that has ended, after a flush of every provider."""
        for telemetry in self.telemetries:
            await asyncio.to_thread(telemetry.tracer_provider.force_flush)
        return self.collector.spans

    async def quiet(self) -> None:
        """No call runs any more."""
        await until(lambda: self.decoder_server.running_calls == 0 and self.encoder_server.running_calls == 0)


@asynccontextmanager
async def house(decoder: ToyDecoder | None = None, encoder: ToyEncoder | None = None, **more: Any) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(OtlpCollector())
        settings = TelemetrySettings(otlp_endpoint=collector.endpoint, otlp_metrics=False, **more)
        client = setup_tracing("client", otlp_endpoint=collector.endpoint)
        decoding, encoding = setup_telemetry("vscan-decoder", settings), setup_telemetry("vscan-encoder", settings)
        telemetries = (client, decoding, encoding)
        for telemetry in telemetries:
            stack.callback(telemetry.shutdown)
        toy_encoder = encoder or ToyEncoder(encoding)
        encoder_server, encoder_address = await stack.enter_async_context(serving_encoder(toy_encoder, encoding))
        channel = await stack.enter_async_context(open_channel(encoder_address, tracer_provider=decoding.tracer_provider))
        toy = decoder or ToyDecoder()
        toy._encoder = encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]
        decoder_server, address = await stack.enter_async_context(serving_decoder(toy, telemetry=decoding))
        stub = await stack.enter_async_context(decoder_stub(address, client))
        yield House(collector, client, stub, toy, toy_encoder, decoder_server, encoder_server, telemetries)


def shape(node: Node) -> list[Any]:
    """Service, kind and name of a node, and the shapes of its children."""
    span = node.span
    return [f"{span.service} {span.kind} {span.name}", *(shape(child) for child in node.children)]


WHOLE = [
    "client INTERNAL ask",
    [
        f"client CLIENT {GENERATE}",
        [
            f"vscan-decoder SERVER {GENERATE}",
            [f"vscan-decoder CLIENT {ENCODE}", [f"vscan-encoder SERVER {ENCODE}", ["vscan-encoder INTERNAL vit"]]],
        ],
    ],
]


async def test_a_request_through_both_services_is_one_tree() -> None:
    async with house() as it:
        with it.client.tracer.start_as_current_span(names.SPAN_ASK):
            async for _ in it.stub.Generate(raw("one two")):
                pass
        await it.quiet()
        root = one_tree(await it.spans())
    assert shape(root) == WHOLE
    assert not any(node.span.failed for node in root.walk())
    assert root.span.resource["service.name"] == "client"
    assert root.only("vit").span.resource["service.version"]


async def test_two_requests_at_once_are_two_trees() -> None:
    async def ask(it: House) -> str:
        with it.client.tracer.start_as_current_span(names.SPAN_ASK) as span:
            async for _ in it.stub.Generate(raw("one two")):
                pass
        return f"{span.get_span_context().trace_id:032x}"

    async with house() as it:
        trace_ids = await asyncio.gather(ask(it), ask(it))
        await it.quiet()
        await it.spans()
        for trace_id in trace_ids:
            assert shape(one_tree(it.collector.trace(trace_id))) == WHOLE


async def test_an_error_marks_the_spans_it_passed_and_keeps_its_trace() -> None:
    async def before_reply() -> None:
        raise InvalidArgument("image", "not an image")

    async with house(encoder=ToyEncoder(before_reply=before_reply)) as it:
        with it.client.tracer.start_as_current_span(names.SPAN_ASK):
            error = await failure(it.stub.Generate(raw("one")))
        await it.quiet()
        root = one_tree(await it.spans())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    for node in (*root.find(GENERATE), *root.find(ENCODE)):
        assert node.span.attributes[names.ATTR_RPC_STATUS_CODE] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        if node.span.kind == "SERVER":
            assert node.span.attributes[names.ATTR_ERROR_TYPE] == "InvalidArgument"
            assert node.span.events == ()  # no exception is recorded: its text belongs in the log


async def test_a_bug_fails_the_server_span_and_leaks_no_text_into_the_trace() -> None:
    async def before_word(word: str) -> None:
        raise ValueError("a prompt")

    async with house(decoder=ToyDecoder(before_word)) as it:
        await failure(it.stub.Generate(raw("one")))
        await it.quiet()
        root = one_tree(await it.spans())
    (server,) = [node.span for node in root.walk() if node.span.kind == "SERVER" and node.span.name == GENERATE]
    assert server.failed
    assert "a prompt" not in repr(root)


def assert_cancelled(root: Node, *, unary: bool) -> None:
    """Every span of the calls is there, ended, and says that it was cancelled."""
    for name in (GENERATE, ENCODE) if unary else (GENERATE,):
        found = root.find(name)
        assert [node.span.kind for node in found] == ["CLIENT", "SERVER"], root.render()
        for node in found:
            assert node.span.attributes[names.ATTR_RPC_STATUS_CODE] == grpc.StatusCode.CANCELLED.value[0], root.render()


async def forever(_: str = "") -> None:
    await asyncio.Event().wait()


async def test_a_request_cancelled_in_the_encoder_is_still_one_tree() -> None:
    async with house(encoder=ToyEncoder(before_reply=forever)) as it:
        call = it.stub.Generate(raw("one"))
        await call.read()
        await it.encoder.entered.wait()
        call.cancel()
        await until(lambda: it.encoder.ended == ["CancelledError"])
        await it.quiet()
        gc.collect()
        root = one_tree(await it.spans())
    assert_cancelled(root, unary=True)


@pytest.mark.parametrize("reads", [0, 1])
async def test_a_stream_cancelled_between_two_replies_is_still_one_tree(reads: int) -> None:
    async with house(decoder=ToyDecoder(forever)) as it:
        call = it.stub.Generate(raw("one"))
        for _ in range(reads):
            await call.read()
        await it.encoder.entered.wait()
        call.cancel()
        await it.quiet()
        with pytest.raises(asyncio.CancelledError):
            await read_all(call)
        root = one_tree(await it.spans())
    assert_cancelled(root, unary=False)


async def read_all(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_reader_whose_task_is_cancelled_leaves_one_tree() -> None:
    async with house(decoder=ToyDecoder(forever)) as it:
        reader = asyncio.create_task(read_all(it.stub.Generate(raw("one"))))
        await it.encoder.entered.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await it.quiet()
        root = one_tree(await it.spans())
    assert_cancelled(root, unary=False)


async def test_the_caller_decides_what_is_recorded() -> None:
    async with house(trace_sample_ratio=0.0) as it:
        async for _ in it.stub.Generate(raw("one")):
            pass
        await it.quiet()
        assert shape(one_tree(await it.spans()))[0] == f"client CLIENT {GENERATE}"


async def test_the_settings_alone_say_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    telemetry = setup_telemetry("vscan-decoder", TelemetrySettings())
    with telemetry.tracer.start_as_current_span("s") as span:
        assert span.is_recording()
    telemetry.shutdown()


async def test_polls_and_health_checks_make_no_traces() -> None:
    async with OtlpCollector() as collector:
        telemetry = setup_telemetry("vscan-decoder", TelemetrySettings(otlp_endpoint=collector.endpoint, otlp_metrics=False))
        async with serving_decoder(ToyDecoder(), telemetry=telemetry) as (_, address), decoder_stub(address, telemetry) as stub:
            await stub.Describe(decoder_pb2.DescribeDecoderRequest())
            with telemetry.tracer.start_as_current_span("pairing"):
                await stub.Describe(decoder_pb2.DescribeDecoderRequest())
        telemetry.shutdown()
        root = one_tree(collector.spans)
    assert root.span.name == "pairing"
    assert [node.span.kind for node in root.walk()] == ["INTERNAL", "CLIENT", "SERVER"]


async def test_nothing_is_said_about_contexts_that_do_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled streams used to leave `Failed to detach context` in the log."""
    with caplog.at_level(logging.WARNING):
        async with house(decoder=ToyDecoder(forever)) as it:
            for _ in range(5):
                call = it.stub.Generate(raw("one"))
                await call.read()
                call.cancel()
            await it.quiet()
            gc.collect()
            await asyncio.sleep(0)
    assert caplog.messages == []
