"""How long a connection lives, how many there are, and who refuses a call too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import grpc.aio

from tests.support.name_server import NameServer
from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import ResourceExhausted
from vscan.rpc.channel import open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.settings import RpcSettings
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

DESCRIBE = decoder_pb2.DescribeDecoderRequest()
SHORT_SECONDS = 0.3


class Counted(ToyDecoder):
    """Counts the calls of Describe."""

    calls = 0

    async def Describe(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return await super().Describe(request, context)


async def test_a_client_finds_a_new_replica_when_its_connection_is_old() -> None:
    """One channel to a name, which first has one address and then a second; no call fails meanwhile."""
    first, second = Counted(), Counted()
    aging: dict[str, Any] = {"max_connection_age_seconds": SHORT_SECONDS, "drain_seconds": 5.0}
    async with serving_decoder(first, RpcSettings(bind="127.0.0.1:0", **aging)) as (_, address):
        port = address.rpartition(":")[2]
        with NameServer({"decoder.test": ["127.0.0.1"]}) as names:
            target = f"dns://{names.address}/decoder.test:{port}"
            async with open_channel(target, insecure=True) as channel:
                stub: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
                await stub.Describe(DESCRIBE, timeout=20, wait_for_ready=True)
                async with serving_decoder(second, RpcSettings(bind=f"127.0.0.2:{port}", **aging)):
                    names.hosts["decoder.test"].append("127.0.0.2")

                    async def second_is_asked() -> bool:
                        await stub.Describe(DESCRIBE, timeout=20)
                        return second.calls > 0

                    await until(second_is_asked, what="the second replica to be asked")


async def test_a_stream_outlives_the_age_of_its_connection() -> None:
    peers: list[str] = []
    go_on = asyncio.Event()

    async def wait(word: str) -> None:
        if word == "wait":
            await go_on.wait()

    servicer = ToyDecoder(wait, on_call=lambda context: peers.append(context.peer()))
    settings = RpcSettings(max_connection_age_seconds=SHORT_SECONDS)
    async with serving_decoder(servicer, settings) as (_, address), decoder_stub(address) as stub:
        running = stub.Generate(raw("one wait two"))
        await running.read()

        async def on_another_connection() -> bool:
            await stub.Describe(DESCRIBE, timeout=20)
            return len(set(peers)) > 2

        await until(on_another_connection, what="two connections to have come after that of the stream")
        go_on.set()
        words = [event.delta.text async for event in running if event.WhichOneof("event") == "delta"]
    assert words == ["one", "wait", "two"]
    assert servicer.ended == ["done"]


async def test_an_idle_connection_is_closed_and_made_again() -> None:
    peers: list[str] = []
    settings = RpcSettings(max_connection_idle_seconds=0.2)
    servicer = ToyDecoder(on_call=lambda context: peers.append(context.peer()))
    async with serving_decoder(servicer, settings) as (_, address), decoder_stub(address) as stub:
        async with open_channel(address) as channel:
            other: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
            await other.Describe(DESCRIBE)
            async with asyncio.timeout(60):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await other.Describe(DESCRIBE, timeout=20)
        await stub.Describe(DESCRIBE, timeout=20)
    assert len(set(peers)) >= 2


async def test_where_one_of_two_replicas_drains_one_more_try_is_enough() -> None:
    """However long its drain takes: clients are told once to go elsewhere, and not refused call by call."""
    go_on, draining, asked = asyncio.Event(), asyncio.Event(), Counter[str]()

    async def wait(word: str) -> None:
        if word == "wait":
            await go_on.wait()

    async def keep_asking(stub: Any) -> None:
        while asked["after"] < 200:
            when = "after" if draining.is_set() else "before"
            try:
                await stub.Describe(DESCRIBE, timeout=20)
            except grpc.aio.AioRpcError as error:
                asked[type(error_from_rpc(error)).__name__] += 1
                await stub.Describe(DESCRIBE, timeout=20)
            asked[when] += 1

    patient: dict[str, Any] = {"drain_seconds": 600.0}
    async with serving_decoder(ToyDecoder(wait), RpcSettings(bind="127.0.0.1:0", **patient)) as (_, address):
        port = address.rpartition(":")[2]
        second = RpcSettings(bind=f"127.0.0.2:{port}", **patient)
        with NameServer({"decoder.test": ["127.0.0.1", "127.0.0.2"]}) as names:
            target = f"dns://{names.address}/decoder.test:{port}"
            async with serving_decoder(ToyDecoder(wait), second) as (server, _), open_channel(target, insecure=True) as channel:
                stub: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
                running: list[Any] = []

                async def second_is_asked() -> bool:
                    running.append(stub.Generate(raw("one wait two"), wait_for_ready=True))
                    await running[-1].read()
                    return server.running_calls > 0

                await until(second_is_asked, what="the second replica to be asked")
                asking = [asyncio.create_task(keep_asking(stub)) for _ in range(8)]
                await until(lambda: asked["before"] > 20)
                stopping = asyncio.create_task(server.stop())
                await until(lambda: server.not_ready_reason() != "")
                draining.set()
                await asyncio.gather(*asking)
                assert not stopping.done()
                go_on.set()
                for call in running:
                    assert await last_of(call) == "finished"
                await stopping
    assert set(asked) <= {"before", "after", "Unavailable"}


async def last_of(call: Any) -> str:
    """The kind of a stream's last event."""
    kind = ""
    while event := await call.read():
        kind = event.WhichOneof("event")
    return kind


async def test_connections_beyond_the_bound_are_closed() -> None:
    async with serving_decoder(ToyDecoder(), RpcSettings(max_connections=3)) as (_, address):
        host, _, port = address.rpartition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        refused = [reader for reader, _ in held if not await reader.read(1)]
        assert len(refused) == 2
        for _, writer in held:
            writer.close()


async def test_a_call_too_many_is_refused_by_the_service_that_says_when_to_come_back() -> None:
    """Not by gRPC, which would not say."""
    go_on = asyncio.Event()

    async def wait(_: str) -> None:
        await go_on.wait()

    settings = RpcSettings(max_concurrent_calls=2)
    async with serving_decoder(ToyDecoder(wait), settings) as (server, address), decoder_stub(address) as stub:
        held = [stub.Generate(raw("one")) for _ in range(2)]
        await until(lambda: server.running_calls == 2)
        errors = await asyncio.gather(*(failure(stub.Describe(DESCRIBE, timeout=60)) for _ in range(200)))
        go_on.set()
        for call in held:
            assert [event.WhichOneof("event") async for event in call] == ["started", "delta", "finished"]
    typed = [error_from_rpc(error) for error in errors]
    assert {type(error) for error in typed} == {ResourceExhausted}
    assert {getattr(error, "retry_delay_ms", 0) for error in typed} == {200}
    assert {error.message for error in typed} == {"2 calls are being served already"}


async def test_who_pings_without_end_is_cut_off() -> None:
    options = [
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with serving_decoder(ToyDecoder()) as (_, address), grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        await stub.Describe(DESCRIBE)
        async with asyncio.timeout(60):
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
