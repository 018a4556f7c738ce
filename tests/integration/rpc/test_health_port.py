"""Health on a port of its own, for probes that speak no TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.certificates import Authority
from tests.support.toy_services import DECODER, ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import StartupError
from vscan.heartbeat import Heartbeat
from vscan.rpc.channel import open_channel
from vscan.rpc.health import MAX_WATCHES, NOT_READY_KEY
from vscan.rpc.readiness import LIVENESS
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.v1 import decoder_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(**fields: Any) -> AsyncIterator[tuple[RpcServer, str, str]]:
    """A server, its address, and that of its health."""
    health = f"127.0.0.1:{free_port()}"
    settings = RpcSettings(**{"health_bind": health, "drain_seconds": 5, **fields})
    async with serving_decoder(ToyDecoder(), settings) as (server, address):
        yield server, address, health


async def check(address: str, service: str = "") -> tuple[int, dict[str, Any]]:
    """The status and the trailing metadata."""
    async with open_channel(address) as channel:
        call: Any = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        return int((await call).status), dict(await call.trailing_metadata() or ())


async def status(address: str, service: str = "") -> int:
    return (await check(address, service))[0]


async def test_it_tells_the_services_the_whole_and_liveness() -> None:
    async with serving() as (server, address, health):
        for port in (address, health):
            assert [await status(port, name) for name in ("", DECODER, LIVENESS)] == [SERVING] * 3
        await server.set_ready(DECODER, False, "the encoder at 10.0.0.1 is away")
        for port in (address, health):
            assert [await status(port, name) for name in ("", DECODER, LIVENESS)] == [NOT_SERVING, NOT_SERVING, SERVING]


async def test_it_does_not_say_why() -> None:
    async with serving() as (server, address, health):
        await server.set_ready(DECODER, False, "the encoder at 10.0.0.1 is away")
        assert (await check(address, DECODER))[1][NOT_READY_KEY] == "the encoder at 10.0.0.1 is away"
        assert NOT_READY_KEY not in (await check(health, DECODER))[1]


async def test_it_is_plaintext_beyond_this_machine_where_the_services_are_not(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("127.0.0.1")
    port = free_port()
    tls = {"tls_cert_file": certificate.cert_file, "tls_key_file": certificate.key_file, "allow_anonymous": True}
    async with serving(bind="0.0.0.0:0", health_bind=f"0.0.0.0:{port}", **tls):
        assert await status(f"127.0.0.1:{port}", LIVENESS) == SERVING


async def test_it_serves_nothing_else() -> None:
    async with serving(reflection=True) as (_, _, health):
        async with decoder_stub(health) as stub:
            for call in (stub.Describe(decoder_pb2.DescribeDecoderRequest()), stub.Generate(raw("one"))):
                assert (await failure(call)).code() is grpc.StatusCode.UNIMPLEMENTED
        async with open_channel(health) as channel:
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            assert (await failure(asked)).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_large_messages_are_refused_and_the_next_is_fine() -> None:
    async with serving() as (_, _, health):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(health, "x" * 2000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await status(health) == SERVING


async def test_its_connections_are_bounded_and_free_again() -> None:
    async with serving() as (_, _, health):
        host, _, port = health.rpartition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(40)]
        refused = [reader for reader, _ in held if not await reader.read(1)]
        assert 1 <= len(refused) <= 8 + 1
        for _, writer in held:
            writer.close()

        async def answers() -> bool:
            try:
                return await _is(health, "", SERVING)
            except grpc.aio.AioRpcError:
                return False

        await until(answers, what="a place for a probe")


async def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartupError, match=f"cannot listen on {taken}: Address already in use"):
            await RpcServer(RpcSettings(health_bind=taken), services=[DECODER]).start()


# ── Watching


async def test_watches_are_bounded_and_places_are_free_again() -> None:
    async with serving() as (_, address, health), open_channel(health) as one, open_channel(address) as other:
        watches = [health_pb2_grpc.HealthStub(one).Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_WATCHES)]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        assert await status(health) == SERVING  # a probe, beside them
        main = [health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_WATCHES)]
        for watch in main:
            assert (await watch.read()).status == SERVING
        one_more = health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest())
        assert (await failure(one_more)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in (*watches, *main):
            watch.cancel()

        async def watched() -> bool:
            watch = health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest())
            try:
                return bool((await watch.read()).status == SERVING)
            except grpc.aio.AioRpcError:
                return False
            finally:
                watch.cancel()

        await until(watched, what="a place for a watcher")


async def test_who_leaves_takes_nothing_from_the_other_watchers() -> None:
    async with serving() as (server, _, health), open_channel(health) as channel, open_channel(health) as other:
        stays = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=DECODER))
        assert (await stays.read()).status == SERVING
        leaves = health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest(service=DECODER))
        assert (await leaves.read()).status == SERVING
        await other.close(None)
        await server.set_ready(DECODER, False)
        assert (await stays.read()).status == NOT_SERVING
        stays.cancel()


async def test_a_service_that_is_not_here_is_unknown_to_a_watcher() -> None:
    async with serving() as (_, _, health), open_channel(health) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="no.Such"))
        assert (await watch.read()).status == UNKNOWN
        watch.cancel()


# ── Liveness


async def test_a_wedged_worker_is_noticed_named_and_forgiven(caplog: pytest.LogCaptureFixture) -> None:
    heart = Heartbeat("the toy", threads="MainThread")
    async with serving(stall_seconds=0.05) as (server, address, health):
        server.watch_over(heart)
        heart.begin()
        for port in (address, health):
            for name in (LIVENESS, DECODER, ""):
                await until(partial(_is, port, name, NOT_SERVING), what=f"{name} not to be served")
        assert server.not_ready_reason() == "the toy gets nowhere"
        told = [record.getMessage() for record in caplog.records if "the toy has finished nothing" in record.getMessage()]
        assert len(told) == 1
        assert "thread MainThread" in told[0]
        assert "liveness.py" in told[0]  # where that thread is as it looks
        heart.rest()
        for name in (LIVENESS, DECODER, ""):
            await until(partial(_is, health, name, SERVING), what=f"{name} to be served again")


async def _is(address: str, service: str, wanted: int) -> bool:
    return bool(await status(address, service) == wanted)


async def test_a_worker_that_is_slow_but_gets_on_is_not_wedged() -> None:
    heart = Heartbeat("the toy", threads="MainThread")
    async with serving(stall_seconds=0.4) as (server, _, _):
        server.watch_over(heart)
        other = Heartbeat("the other", threads="MainThread")
        server.watch_over(other)
        heart.begin()
        other.begin()

        async def the_other_is_wedged() -> bool:
            heart.begin()
            return server.not_ready_reason() != ""

        await until(the_other_is_wedged)
        assert server.not_ready_reason() == "the other gets nowhere"


async def test_it_lives_while_it_drains() -> None:
    held = asyncio.Event()

    async def wait(_: str) -> None:
        await held.wait()

    health = f"127.0.0.1:{free_port()}"
    settings = RpcSettings(health_bind=health, drain_seconds=60)
    async with serving_decoder(ToyDecoder(wait), settings) as (server, address), decoder_stub(address) as stub:
        running = stub.Generate(raw("one"))
        await running.read()
        stopping = asyncio.create_task(server.stop())
        await until(lambda: _is(health, DECODER, NOT_SERVING))
        assert await status(health, LIVENESS) == SERVING
        held.set()
        assert [event.WhichOneof("event") async for event in running] == ["delta", "finished"]
        await stopping
