"""Callers that do not send what they have begun, or read what they asked for: they hold their own places, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.identities import IdentitiesFile
from tests.support.toy_services import DECODER, ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.health import MAX_WATCHES
from vscan.rpc.infrastructure import MAX_CALLS, InfrastructureGate
from vscan.rpc.settings import RpcSettings
from vscan.v1 import decoder_pb2

DESCRIBE = decoder_pb2.DescribeDecoderRequest()
DESCRIBE_METHOD, GENERATE_METHOD = f"/{DECODER}/Describe", f"/{DECODER}/Generate"
CHECK_METHOD, REFLECTION_METHOD = (
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
LARGE = 48 * 2**20  # more than gRPC takes for a caller that does not read


class Bulky(ToyDecoder):
    """Its replies are large."""

    async def Describe(self, request: Any, context: Any) -> decoder_pb2.DescribeDecoderResponse:
        """A long name."""
        self.entered.set()
        return decoder_pb2.DescribeDecoderResponse(model="m" * LARGE)


class Talkative(ToyDecoder):
    """Its answers are long."""

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[decoder_pb2.GenerateEvent]:
        """As much again and again."""
        event = decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(text="w" * 2**19))
        try:
            for _ in range(LARGE // 2**19):
                yield event
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Without interceptors, for calls that are streams of bytes: what they do not read stays with the server."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


async def begun(channel: grpc.aio.Channel, method: str, request: Any = None, **arguments: Any) -> Any:
    """A call, with its request or with none yet; nothing is read of it."""
    call = channel.stream_stream(method)(**arguments)  # type: ignore[call-arg]
    if request is not None:
        await call.write(request.SerializeToString())
        await call.done_writing()
    return call


async def test_a_request_that_does_not_come_holds_a_place_for_so_long_alone() -> None:
    settings = RpcSettings(max_concurrent_calls=1, client_patience_seconds=0.5)
    async with serving_decoder(ToyDecoder(), settings) as (server, address), channel_to(address) as channel:
        call = await begun(channel, DESCRIBE_METHOD)
        await until(lambda: server.running_calls == 1)
        error = error_from_rpc(await failure(call))
        assert isinstance(error, DeadlineExceeded)
        assert server.running_calls == 0


async def test_requests_that_do_not_come_are_refused_like_others_where_there_are_too_many() -> None:
    settings = RpcSettings(max_concurrent_calls=2)
    async with serving_decoder(ToyDecoder(), settings) as (server, address), channel_to(address) as channel:
        held = [await begun(channel, DESCRIBE_METHOD) for _ in range(2)]
        await until(lambda: server.running_calls == 2)
        for _ in range(2 * MAX_CALLS):
            error = error_from_rpc(await failure(await begun(channel, DESCRIBE_METHOD)))
            assert isinstance(error, ResourceExhausted)
            assert error.retry_delay_ms
        for call in held:
            call.cancel()


async def test_a_call_ends_with_its_connection_whose_time_is_over() -> None:
    settings = RpcSettings(max_connection_age_seconds=0.1, max_connection_grace_seconds=0.1)
    servicer = Bulky()
    async with serving_decoder(servicer, settings) as (server, address), channel_to(address) as channel:
        call = await begun(channel, DESCRIBE_METHOD, DESCRIBE)
        await servicer.entered.wait()  # the count may be back at 0 before anybody looks
        await until(lambda: server.running_calls == 0)
        call.cancel()


async def test_a_tenants_requests_that_do_not_come_take_nobody_elses_places(tmp_path: Path) -> None:
    people = IdentitiesFile(tmp_path)
    slow, quick = people.add("slow", "a"), people.add("quick", "b")
    people.limit("a", max_concurrent_calls=2)
    settings = RpcSettings(max_concurrent_calls=4, identities_file=people.path)
    async with AsyncExitStack() as stack:
        server, address = await stack.enter_async_context(serving_decoder(ToyDecoder(), settings))
        channel = await stack.enter_async_context(channel_to(address))
        stub = await stack.enter_async_context(decoder_stub(address))
        shown = (("authorization", f"Bearer {slow}"),)
        calls = [await begun(channel, DESCRIBE_METHOD, metadata=shown) for _ in range(2)]
        await until(lambda: server.tenant_counts.running == {"a": 2})
        for _ in range(150):
            error = error_from_rpc(await failure(await begun(channel, DESCRIBE_METHOD, metadata=shown)))
            assert isinstance(error, ResourceExhausted)
            assert error.retry_delay_ms
        assert server.tenant_counts.running == {"a": 2}
        await stub.Describe(DESCRIBE, metadata=(("authorization", f"Bearer {quick}"),))
        for call in calls:
            call.cancel()


async def test_a_call_without_a_request_is_told_so() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), channel_to(address) as channel:
        call = await begun(channel, DESCRIBE_METHOD)
        await call.done_writing()
        error = error_from_rpc(await failure(call))
        assert isinstance(error, InvalidArgument)
        assert error.field == "request"


async def test_replies_that_are_not_read_hold_a_place_for_so_long_alone() -> None:
    servicer = Talkative()
    settings = RpcSettings(max_concurrent_calls=16, client_patience_seconds=0.5)
    async with AsyncExitStack() as stack:
        server, address = await stack.enter_async_context(serving_decoder(servicer, settings))
        channel = await stack.enter_async_context(channel_to(address))
        calls = [await begun(channel, GENERATE_METHOD, raw("go on")) for _ in range(4)]  # kept, or they would be cancelled
        await until(lambda: server.running_calls > 0)
        await until(lambda: server.running_calls == 0)
        assert set(servicer.ended) == {"GeneratorExit"}
        stub = await stack.enter_async_context(decoder_stub(address))
        assert (await stub.Describe(DESCRIBE, timeout=20)).model == "toy"
        assert not any(call.cancelled() for call in calls)


async def test_a_large_reply_keeps_its_place_until_it_is_read() -> None:
    """It is held in memory, so it counts."""
    settings = RpcSettings(max_concurrent_calls=1, client_patience_seconds=0.01)
    async with AsyncExitStack() as stack:
        server, address = await stack.enter_async_context(serving_decoder(Bulky(), settings))
        channel = await stack.enter_async_context(channel_to(address))
        stub = await stack.enter_async_context(decoder_stub(address))
        call = await begun(channel, DESCRIBE_METHOD, DESCRIBE)
        await until(lambda: server.running_calls == 1)
        error = error_from_rpc(await failure(stub.Describe(DESCRIBE, timeout=20)))
        assert isinstance(error, ResourceExhausted)
        assert error.retry_delay_ms
        assert len(decoder_pb2.DescribeDecoderResponse.FromString(await call.read()).model) == LARGE
        await until(lambda: server.running_calls == 0)


@pytest.mark.parametrize("method", [CHECK_METHOD, REFLECTION_METHOD])
async def test_probes_that_do_not_come_take_no_places_of_the_services(method: str) -> None:
    settings = RpcSettings(max_concurrent_calls=1, reflection=True)
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(serving_decoder(ToyDecoder(), settings))
        channel = await stack.enter_async_context(channel_to(address))
        stub = await stack.enter_async_context(decoder_stub(address))
        calls = [await begun(channel, method) for _ in range(4 * MAX_CALLS)]
        await until(lambda: is_refused(channel))  # so they have come
        assert (await stub.Describe(DESCRIBE, timeout=20)).model == "toy"
        for call in calls:
            call.cancel()
        await until(lambda: is_serving(channel))


async def is_refused(channel: grpc.aio.Channel) -> bool:
    """Whether there are too many probes."""
    return not await is_serving(channel)


async def is_serving(channel: grpc.aio.Channel) -> bool:
    """Whether health is told."""
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_a_probe_that_does_not_come_is_given_up() -> None:
    assert MAX_WATCHES < MAX_CALLS  # so watchers alone cannot keep out those who ask
    server = grpc.aio.server(interceptors=[InfrastructureGate(1, patience_seconds=0.2)])
    servicer = health_pb2_grpc.HealthServicer()
    servicer.Check = answer_serving
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with channel_to(f"127.0.0.1:{port}") as channel:
            call = await begun(channel, CHECK_METHOD)
            assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await is_serving(channel)
    finally:
        await server.stop(None)


async def answer_serving(request: Any, context: Any) -> Any:
    """A check."""
    await asyncio.sleep(0)
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
