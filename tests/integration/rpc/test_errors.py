"""What a caller gets when a call fails, from a real server over loopback."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.unit.rpc.test_error_details import EXAMPLES
from vscan.errors import InternalError, InvalidArgument, StartupError, Unavailable, VScanError
from vscan.rpc.channel import open_channel
from vscan.rpc.error_details import STATUS_DETAILS_KEY, error_from_rpc
from vscan.rpc.settings import RpcSettings
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

SECRET = "a prompt that nobody else may read"
DESCRIBE = decoder_pb2.DescribeDecoderRequest()


def raising(error: BaseException) -> ToyDecoder:
    async def before_word(word: str) -> None:
        raise error

    return ToyDecoder(before_word)


def trailer(error: grpc.aio.AioRpcError) -> bytes:
    trailing: Any = error.trailing_metadata()
    return bytes(trailing[STATUS_DETAILS_KEY])


async def both_failures(servicer: ToyDecoder, **kwargs: Any) -> tuple[grpc.aio.AioRpcError, grpc.aio.AioRpcError]:
    """How the streamed and the unary call of that servicer fail."""
    async with serving_decoder(servicer, **kwargs) as (_, address), decoder_stub(address) as stub:
        return await failure(stub.Generate(raw("one two"))), await failure(stub.Describe(DESCRIBE))


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
async def test_each_error_reaches_the_caller_whole(error: VScanError) -> None:
    for rpc_error in await both_failures(raising(error)):
        assert rpc_error.code() is error.status
        back = error_from_rpc(rpc_error)
        assert type(back) is type(error)
        assert vars(back) == vars(error)


async def test_an_error_in_a_group_of_tasks_is_still_that_error() -> None:
    async def before_word(word: str) -> None:
        async def fail() -> None:
            raise InvalidArgument("messages[0]", "bad")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    for rpc_error in await both_failures(ToyDecoder(before_word)):
        assert error_from_rpc(rpc_error).message == "messages[0]: bad"


async def test_a_failed_call_to_another_service_keeps_its_meaning() -> None:
    async def before_word(word: str) -> None:
        async with open_channel("127.0.0.1:1") as away:
            await away.unary_unary("/vscan.v1.VisionEncoder/Encode", lambda _: b"", lambda _: b"")(None)

    for rpc_error in await both_failures(ToyDecoder(before_word)):
        assert isinstance(error_from_rpc(rpc_error), Unavailable)


@pytest.mark.parametrize(
    "fault",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError(SECRET),
        StartupError(SECRET),
        ExceptionGroup(SECRET, [OSError(SECRET)]),
    ],
)
async def test_an_unknown_fault_shows_its_trace_and_hides_its_text(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = setup_telemetry("vscan-decoder", TelemetrySettings())
    with caplog.at_level(logging.ERROR, logger="vscan.rpc"):
        for rpc_error in await both_failures(raising(fault), telemetry=telemetry):
            error = error_from_rpc(rpc_error)
            assert isinstance(error, InternalError)
            assert len(error.trace_id) == 32
            assert error.trace_id in error.message
            assert SECRET not in str(rpc_error)
            assert SECRET.encode() not in trailer(rpc_error)
    assert len(caplog.records) == 2
    assert all(record.exc_info for record in caplog.records)
    assert caplog.text.count(f"{type(fault).__name__}: ") >= 2
    assert SECRET in caplog.text
    telemetry.shutdown()


async def test_the_next_call_works_after_an_unknown_fault() -> None:
    calls = iter([ValueError("once"), None])

    async def before_word(word: str) -> None:
        if (error := next(calls)) is not None:
            raise error

    async with serving_decoder(ToyDecoder(before_word)) as (_, address), decoder_stub(address) as stub:
        await failure(stub.Generate(raw("one")))
        events = [event.WhichOneof("event") async for event in stub.Generate(raw("one"))]
    assert events == ["started", "delta", "finished"]


async def test_what_came_before_the_error_is_delivered() -> None:
    async def before_word(word: str) -> None:
        if word == "two":
            raise Unavailable("gone")

    async with serving_decoder(ToyDecoder(before_word)) as (_, address), decoder_stub(address) as stub:
        call = stub.Generate(raw("one two"))
        received = [(await call.read()).WhichOneof("event"), (await call.read()).WhichOneof("event")]
        assert received == ["started", "delta"]
        assert isinstance(error_from_rpc(await failure(call)), Unavailable)


async def test_a_servicer_that_aborts_by_itself_is_left_alone() -> None:
    async with serving_decoder(AbortingDecoder()) as (_, address), decoder_stub(address) as stub:
        error = await failure(stub.Describe(DESCRIBE))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "my own words")


class AbortingDecoder(ToyDecoder):
    async def Describe(self, request: decoder_pb2.DescribeDecoderRequest, context: Any) -> decoder_pb2.DescribeDecoderResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "my own words")
        raise AssertionError("abort returns never")


@pytest.mark.parametrize("method", ["Describe", "Generate"])
async def test_bytes_that_are_no_message_are_a_bad_request(method: str) -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), open_channel(address) as channel:
        make = channel.unary_unary if method == "Describe" else channel.unary_stream
        error = await failure(
            make(f"/vscan.v1.Decoder/{method}", lambda request: request, lambda reply: reply)(b"\xff\xff\xff")
        )
    assert str(error_from_rpc(error)) == "request: the bytes are not a message of this call's type"
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_the_limit_is_a_bad_request_that_names_it() -> None:
    settings = RpcSettings(max_message_bytes=2048)
    async with serving_decoder(ToyDecoder(), settings) as (_, address), decoder_stub(address) as stub:
        error = error_from_rpc(await failure(stub.Generate(raw("x" * 5000))))
        assert isinstance(error, InvalidArgument)
        assert error.limit == "2,048 bytes"
        assert not error.retryable
        assert (await stub.Describe(DESCRIBE)).model == "toy"


class WrongDecoder(ToyDecoder):
    """Answers with what is no message of its calls."""

    async def Describe(self, request: decoder_pb2.DescribeDecoderRequest, context: Any) -> Any:
        return SECRET

    async def Generate(self, request: decoder_pb2.GenerateRequest, context: Any) -> Any:
        yield SECRET


async def test_a_reply_that_cannot_be_serialized_is_an_unknown_fault() -> None:
    for rpc_error in await both_failures(WrongDecoder()):
        assert isinstance(error_from_rpc(rpc_error), InternalError)
        assert SECRET not in str(rpc_error)


class BigDecoder(ToyDecoder):
    """Answers with more than a message may hold."""

    async def Describe(self, request: Any, context: Any) -> Any:
        return decoder_pb2.DescribeDecoderResponse(model="x" * 5000)

    async def Generate(self, request: Any, context: Any) -> Any:
        yield decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(text="x" * 5000))


async def test_a_reply_over_the_limit_is_told_from_a_request_over_it() -> None:
    settings = RpcSettings(max_message_bytes=2048)
    async with serving_decoder(BigDecoder(), settings) as (_, address), decoder_stub(address) as stub:
        for call in (stub.Generate(raw("one")), stub.Describe(DESCRIBE)):
            rpc_error = await failure(call)
            error = error_from_rpc(rpc_error)
            assert isinstance(error, InvalidArgument), rpc_error
            assert (error.field, error.limit) == ("reply", "2,048 bytes"), rpc_error
    async with serving_decoder(BigDecoder()) as (_, address), open_channel(address, max_message_bytes=2048) as channel:
        narrow = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        for call, field in (
            (narrow.Describe(DESCRIBE), "reply"),
            (narrow.Generate(raw("one")), "reply"),
            (narrow.Generate(raw("x" * 5000)), "request"),
        ):
            error = error_from_rpc(await failure(call))
            assert isinstance(error, InvalidArgument)
            assert error.field == field


async def test_a_call_that_no_service_has_is_a_failed_precondition() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), open_channel(address) as channel:
        error = await failure(channel.unary_unary("/vscan.v1.Decoder/Nothing", lambda _: b"", lambda _: b"")(None))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error_from_rpc(error).status is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_dead_server_is_unavailable() -> None:
    async with serving_decoder(ToyDecoder()) as (server, address), decoder_stub(address) as stub:
        await stub.Describe(DESCRIBE)
        await server.stop()
        error = error_from_rpc(await failure(stub.Describe(DESCRIBE)))
    assert isinstance(error, Unavailable)
    assert error.retryable


async def test_a_message_in_any_script_arrives() -> None:
    error = InvalidArgument("messages[0]", "zu groß: 図形 🙂", limit="5 МП")
    for rpc_error in await both_failures(raising(error)):
        assert str(error_from_rpc(rpc_error)) == str(error)


async def test_a_very_long_message_is_cut_and_still_typed() -> None:
    for rpc_error in await both_failures(raising(InvalidArgument("prompt", "x" * 100_000, limit="5"))):
        error = error_from_rpc(rpc_error)
        assert isinstance(error, InvalidArgument)
        assert (error.field, error.limit) == ("prompt", "5")
        assert len(error.message) < 1100
        status = status_pb2.Status.FromString(trailer(rpc_error))
        assert status.ByteSize() < 8192


async def test_a_caller_cannot_say_whose_tenant_it_is() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), decoder_stub(address) as stub:
        for call in (
            stub.Generate(raw("one"), metadata=(("x-vscan-tenant", "rich"),)),
            stub.Describe(DESCRIBE, metadata=(("x-vscan-tenant", "default"),)),
        ):
            error = error_from_rpc(await failure(call))
            assert isinstance(error, InvalidArgument)
            assert error.field == "metadata.x-vscan-tenant"
        assert (await stub.Describe(DESCRIBE, metadata=(("x-other", "1"),))).model == "toy"
