"""What a servicer sees of its call: tenant, time left, cancellation; and how many calls are let in."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from vscan.rpc.channel import open_channel
from vscan.rpc.deadlines import Deadline
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant import current_tenant
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

DESCRIBE = decoder_pb2.DescribeDecoderRequest()


async def forever(_: str) -> None:
    await asyncio.Event().wait()


async def test_the_tenant_is_default_in_both_kinds_of_call() -> None:
    seen: list[str] = []
    servicer = ToyDecoder(on_call=lambda context: seen.append(current_tenant()))
    async with serving_decoder(servicer) as (_, address), decoder_stub(address) as stub:
        await stub.Describe(DESCRIBE)
        async for _ in stub.Generate(raw("one")):
            pass
    assert seen == ["default", "default"]


async def test_the_servicer_knows_the_time_left() -> None:
    seen: list[Deadline] = []
    servicer = ToyDecoder(on_call=lambda context: seen.append(Deadline.of(context)))
    async with serving_decoder(servicer) as (_, address), decoder_stub(address) as stub:
        await stub.Describe(DESCRIBE, timeout=50)
        await stub.Describe(DESCRIBE)
    left = seen[0].left_seconds()
    assert left is not None
    assert 0 < left < 60  # gRPC rounds a timeout up on its way
    assert seen[1].left_seconds() is None


async def test_a_deadline_ends_the_servicer_and_the_call() -> None:
    servicer = ToyDecoder(forever)
    async with serving_decoder(servicer) as (_, address), decoder_stub(address) as stub:
        error = error_from_rpc(await failure(stub.Generate(raw("one"), timeout=0.2)))
        assert isinstance(error, DeadlineExceeded)
        await until(lambda: servicer.ended == ["CancelledError"])


async def test_a_caller_that_cancels_ends_the_servicer() -> None:
    servicer = ToyDecoder(forever)
    async with serving_decoder(servicer) as (_, address), decoder_stub(address) as stub:
        call = stub.Generate(raw("one"))
        await call.read()
        call.cancel()
        await until(lambda: servicer.ended == ["CancelledError"])


async def test_a_caller_whose_task_is_cancelled_ends_a_unary_servicer() -> None:
    servicer = ToyDecoder(forever)
    async with serving_decoder(servicer) as (server, address), decoder_stub(address) as stub:
        task = asyncio.create_task(describe(stub))
        await servicer.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.running_calls == 0)


async def describe(stub: decoder_pb2_grpc.DecoderStub) -> Any:
    return await stub.Describe(DESCRIBE)


async def test_a_caller_that_reads_nothing_and_leaves_ends_the_servicer() -> None:
    """The server is stuck writing, not in the servicer: that one must be closed all the same, in its own task."""
    servicer = BigDecoder()
    async with serving_decoder(servicer) as (server, address), decoder_stub(address) as stub:
        call = stub.Generate(raw("one"))
        await call.read()
        written = -1
        while written != servicer.written:  # until flow control holds the server
            written = servicer.written
            for _ in range(20):
                await stub.Describe(DESCRIBE)
        call.cancel()
        await until(lambda: servicer.closed_in_its_task is not None)
        assert servicer.closed_in_its_task
        await until(lambda: server.running_calls == 0)


class BigDecoder(ToyDecoder):
    """Writes large deltas for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closed_in_its_task: bool | None = None

    async def Generate(self, request: decoder_pb2.GenerateRequest, context: Any) -> Any:
        task = asyncio.current_task()
        try:
            while True:
                yield decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(text="x" * 1_000_000))
                self.written += 1
        finally:
            self.closed_in_its_task = asyncio.current_task() is task


async def test_one_call_too_many_is_told_when_to_come_back() -> None:
    servicer = ToyDecoder(forever)
    settings = RpcSettings(max_concurrent_calls=1, drain_seconds=0)
    async with serving_decoder(servicer, settings) as (server, address), decoder_stub(address) as stub:
        running = stub.Generate(raw("one"))
        await running.read()
        error = error_from_rpc(await failure(stub.Describe(DESCRIBE)))
        assert isinstance(error, ResourceExhausted)
        assert error.retry_delay_ms > 0
        running.cancel()
        await until(lambda: server.running_calls == 0)
        servicer._before_word = None
        assert (await stub.Describe(DESCRIBE)).model == "toy"


async def test_a_call_and_its_replies_may_have_the_size_of_the_limit() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), decoder_stub(address) as stub:
        word = "x" * (8 * 1024 * 1024)
        texts = [event.delta.text async for event in stub.Generate(raw(word)) if event.WhichOneof("event") == "delta"]
    assert texts == [word]


def test_plaintext_beyond_this_machine_needs_to_be_asked_for() -> None:
    with pytest.raises(InvalidArgument, match="beyond this machine"):
        open_channel("encoder.example:7071")


async def test_plaintext_beyond_this_machine_can_be_asked_for() -> None:
    channel = open_channel("encoder.example:7071", insecure=True)
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
    await channel.close(None)


async def test_a_compressed_message_is_as_large_as_what_is_in_it() -> None:
    settings = RpcSettings(max_message_bytes=2**20)
    servicer = ToyDecoder()
    request = raw("a" * 64 * 2**20)
    async with serving_decoder(servicer, settings) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        error = await failure(stub.Generate(request, compression=grpc.Compression.Gzip, timeout=20))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not servicer.entered.is_set()
        assert (await stub.Describe(DESCRIBE, compression=grpc.Compression.Gzip)).model == "toy"


async def test_a_request_of_many_fields_is_refused_before_it_is_parsed() -> None:
    servicer = ToyDecoder()
    async with serving_decoder(servicer, RpcSettings(max_message_fields=64)) as (_, address), decoder_stub(address) as stub:
        many = decoder_pb2.GenerateRequest(chat=decoder_pb2.Chat(messages=[decoder_pb2.Message()] * 100))
        error = error_from_rpc(await failure(stub.Generate(many)))
        assert isinstance(error, InvalidArgument)
        assert (error.field, error.limit) == ("request", "64")
        assert [event async for event in stub.Generate(raw("one"))]


async def test_requests_have_room_for_so_many_bytes_together() -> None:
    servicer = ToyDecoder(forever)
    settings = RpcSettings(max_message_bytes=100_000, max_request_bytes=100_000)
    async with serving_decoder(servicer, settings) as (server, address), decoder_stub(address) as stub:
        first = stub.Generate(raw("x" * 60_000))
        await first.read()
        error = error_from_rpc(await failure(stub.Generate(raw("x" * 60_000))))
        assert isinstance(error, ResourceExhausted)
        assert "100,000 bytes" in error.message
        second = stub.Generate(raw("x" * 30_000))  # there is room for a small one
        await second.read()
        first.cancel()
        await until(lambda: server.running_calls == 1)
        third = stub.Generate(raw("x" * 60_000))
        await third.read()
        second.cancel()
        third.cancel()
        await until(lambda: server.running_calls == 0)
