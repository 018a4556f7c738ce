"""A server's life: the port, TLS, health, reflection, draining."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
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
from vscan.errors import InvalidArgument, StartupError, Unavailable
from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.health import NOT_READY_KEY
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

DESCRIBE = decoder_pb2.DescribeDecoderRequest()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def refusal(settings: RpcSettings) -> str:
    """The line with which a server with these settings does not start."""
    with pytest.raises(StartupError) as caught:
        await RpcServer(settings, services=[DECODER]).start()
    assert "\n" not in caught.value.message
    return caught.value.message


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def on_loopback(address: str) -> str:
    """How this machine reaches a server that is bound to all addresses."""
    return f"127.0.0.1:{address.rpartition(':')[2]}"


async def test_port_0_takes_a_free_port_and_the_ready_file_tells_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with serving_decoder(ToyDecoder(), RpcSettings(ready_file=ready)) as (_, address), decoder_stub(address) as stub:
        assert address.startswith("127.0.0.1:")
        assert not address.endswith(":0")
        assert ready.read_text() == address
        assert names_in(tmp_path) == ["ready"]  # nothing half written is left
        assert (await stub.Describe(DESCRIBE)).model == "toy"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback to listen on")
async def test_ipv6_loopback() -> None:
    async with serving_decoder(ToyDecoder(), RpcSettings(bind="[::1]:0")) as (_, address), decoder_stub(address) as stub:
        assert address.startswith("[::1]:")
        assert (await stub.Describe(DESCRIBE)).model == "toy"


async def test_a_port_in_use_by_our_own_kind_is_named() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address):
        assert await refusal(RpcSettings(bind=address)) == f"cannot listen on {address}: Address already in use"


async def test_a_port_in_use_by_another_program_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert await refusal(RpcSettings(bind=address)) == f"cannot listen on {address}: Address already in use"


async def test_a_port_is_free_again_after_a_server_that_had_callers() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address), decoder_stub(address) as stub:
        await stub.Describe(DESCRIBE)
    async with serving_decoder(ToyDecoder(), RpcSettings(bind=address)) as (_, again):
        assert again == address


async def test_an_address_of_another_machine_is_named() -> None:
    message = await refusal(RpcSettings(bind="192.0.2.1:0", insecure=True))
    assert message == "cannot listen on 192.0.2.1:0: Cannot assign requested address"


async def test_a_name_that_does_not_exist_is_named() -> None:
    assert (await refusal(RpcSettings(bind="no-such-host.invalid:0", insecure=True))).startswith(
        "cannot listen on no-such-host.invalid:0: "
    )


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
async def test_plaintext_beyond_this_machine_is_refused(bind: str) -> None:
    message = await refusal(RpcSettings(bind=bind))
    assert message.startswith(f"plaintext on {bind} ")
    assert "`insecure`" in message


async def test_plaintext_beyond_this_machine_can_be_asked_for() -> None:
    settings = RpcSettings(bind="0.0.0.0:0", insecure=True)
    async with serving_decoder(ToyDecoder(), settings) as (_, address), decoder_stub(on_loopback(address)) as stub:
        assert (await stub.Describe(DESCRIBE)).model == "toy"


async def test_a_ready_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ready"
    assert await refusal(RpcSettings(ready_file=path)) == f"cannot write {path}: No such file or directory"


# ── TLS


def tls_settings(authority: Authority, **more: Any) -> RpcSettings:
    certificate = authority.issue("127.0.0.1")
    return RpcSettings(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, **more)


async def describe_over(address: str, tls: ClientTls) -> Any:
    async with open_channel(address, tls=tls) as channel:
        return await decoder_pb2_grpc.DecoderStub(channel).Describe(DESCRIBE, timeout=20)  # type: ignore[no-untyped-call]


async def test_tls_beyond_this_machine_that_anybody_may_call_can_be_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    settings = tls_settings(authority, bind="0.0.0.0:0", allow_anonymous=True)
    async with serving_decoder(ToyDecoder(), settings) as (_, address):
        assert (await describe_over(on_loopback(address), ClientTls(ca_file=authority.ca_file))).model == "toy"


async def test_a_client_that_trusts_another_ca_is_not_served(tmp_path: Path) -> None:
    stranger = ClientTls(ca_file=Authority(tmp_path).ca_file)
    async with serving_decoder(ToyDecoder(), tls_settings(Authority(tmp_path))) as (_, address):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await describe_over(address, stranger)
    assert isinstance(error_from_rpc(caught.value), Unavailable)


async def test_plaintext_to_a_tls_server_is_not_served(tmp_path: Path) -> None:
    settings = tls_settings(Authority(tmp_path))
    async with serving_decoder(ToyDecoder(), settings) as (_, address), decoder_stub(address) as stub:
        assert isinstance(error_from_rpc(await failure(stub.Describe(DESCRIBE, timeout=20))), Unavailable)


async def test_mutual_tls_serves_clients_of_its_ca_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    known, unknown = authority.issue("decoder@example.org"), Authority(tmp_path).issue("decoder@example.org")
    settings = tls_settings(authority, tls_client_ca_file=authority.ca_file)
    async with serving_decoder(ToyDecoder(), settings) as (_, address):
        with_cert = ClientTls(ca_file=authority.ca_file, cert_file=known.cert_file, key_file=known.key_file)
        assert (await describe_over(address, with_cert)).model == "toy"
        for refused in (
            ClientTls(ca_file=authority.ca_file),
            ClientTls(ca_file=authority.ca_file, cert_file=unknown.cert_file, key_file=unknown.key_file),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await describe_over(address, refused)


async def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("127.0.0.1")
    missing = tmp_path / "missing.pem"
    for settings in (
        RpcSettings(tls_cert_file=missing, tls_key_file=certificate.key_file),
        RpcSettings(tls_cert_file=certificate.cert_file, tls_key_file=missing),
        RpcSettings(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, tls_client_ca_file=missing),
    ):
        assert await refusal(settings) == f"cannot read {missing}: No such file or directory"


async def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    message = await refusal(RpcSettings(tls_cert_file=one.cert_file, tls_key_file=other.key_file))
    assert str(one.cert_file) in message
    assert str(other.key_file) in message


async def test_a_file_without_a_ca_is_refused(tmp_path: Path) -> None:
    own = Authority(tmp_path).issue("127.0.0.1")
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = RpcSettings(tls_cert_file=own.cert_file, tls_key_file=own.key_file, tls_client_ca_file=tmp_path / "ca.pem")
    assert await refusal(settings) == f"{tmp_path / 'ca.pem'} holds no certificate of a CA"


async def test_a_client_names_the_tls_file_that_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_channel("127.0.0.1:1", tls=ClientTls(ca_file=tmp_path / "missing.pem"))
    assert caught.value.field == "tls.ca_file"


# ── Health and reflection


async def health(address: str, service: str) -> tuple[int, str]:
    """The status, and the reason in the trailing metadata."""
    async with open_channel(address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        status = (await call).status
        trailing: Any = await call.trailing_metadata()
        return status, dict(trailing).get(NOT_READY_KEY, "")


async def test_health_of_the_services_and_of_the_whole() -> None:
    server = RpcServer(RpcSettings(drain_seconds=0), services=["a.A", "b.B"])
    address = await server.start()
    assert await health(address, "") == (NOT_SERVING, "a.A: starting; b.B: starting")
    assert await health(address, "a.A") == (NOT_SERVING, "starting")
    await server.set_ready("a.A", True)
    assert await health(address, "a.A") == (SERVING, "")
    assert await health(address, "") == (NOT_SERVING, "b.B: starting")
    await server.set_ready("b.B", False, "the encoder's hidden size is 64, not 128\nü")
    assert await health(address, "b.B") == (NOT_SERVING, "the encoder's hidden size is 64, not 128 ?")
    assert server.not_ready_reason("b.B").startswith("the encoder's hidden size")
    await server.set_ready("b.B", True)
    assert await health(address, "") == (SERVING, "")
    assert server.not_ready_reason() == ""
    await server.set_ready("a.A", False, "the engine died")
    assert await health(address, "") == (NOT_SERVING, "a.A: the engine died")
    await server.stop()


async def test_a_watcher_is_told_of_each_change() -> None:
    async with serving_decoder(ToyDecoder()) as (server, address), open_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=DECODER))
        seen = [(await watch.read()).status]
        for ready in (False, True):
            await server.set_ready(DECODER, ready)
            seen.append((await watch.read()).status)
        stopping = asyncio.create_task(server.stop())
        seen.append((await watch.read()).status)
        watch.cancel()
        await stopping
    assert seen == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]


async def test_the_health_of_a_service_that_is_not_here_is_not_found() -> None:
    async with serving_decoder(ToyDecoder()) as (_, address):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(address, "no.Such")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def listed_services(address: str) -> set[str]:
    async with open_channel(address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        async for reply in call:
            return {service.name for service in reply.list_services_response.service}
    return set()


@pytest.mark.parametrize(
    ("bind", "reflection", "served"),
    [
        ("127.0.0.1:0", None, True),
        ("127.0.0.1:0", False, False),
        ("0.0.0.0:0", None, False),
        ("0.0.0.0:0", True, True),
    ],
)
async def test_reflection_is_for_loopback_unless_asked(bind: str, reflection: bool | None, served: bool) -> None:
    settings = RpcSettings(bind=bind, insecure=True, reflection=reflection)
    async with serving_decoder(ToyDecoder(), settings) as (_, address):
        if served:
            assert DECODER in await listed_services(on_loopback(address))
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed_services(on_loopback(address))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ── Draining


class GatedDecoder(ToyDecoder):
    """Waits at the word "wait" until it is let go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        super().__init__(self._wait)

    async def _wait(self, word: str) -> None:
        if word == "wait":
            await self.go_on.wait()


async def test_draining_finishes_a_running_stream_and_refuses_new_calls() -> None:
    servicer = GatedDecoder()
    async with serving_decoder(servicer) as (server, address), decoder_stub(address) as stub:
        running = stub.Generate(raw("one wait two"))
        await running.read()
        stopping = asyncio.create_task(server.stop())
        await until(lambda: server.not_ready_reason(DECODER) == "stopping")
        assert isinstance(error_from_rpc(await failure(stub.Describe(DESCRIBE))), Unavailable)
        assert not stopping.done()
        servicer.go_on.set()
        words = [event.delta.text async for event in running if event.WhichOneof("event") == "delta"]
        await stopping
    assert words == ["one", "wait", "two"]
    assert servicer.ended == ["done"]


async def test_a_stream_that_outlives_the_drain_ends_in_an_error_that_says_so() -> None:
    servicer = GatedDecoder()
    async with serving_decoder(servicer, RpcSettings(drain_seconds=0.05)) as (server, address), decoder_stub(address) as stub:
        running = stub.Generate(raw("wait"))
        await running.read()
        stopping = asyncio.create_task(server.stop())
        error = error_from_rpc(await failure(running))
        await stopping
    assert isinstance(error, Unavailable)
    assert error.message == "the service stopped before the call ended"
    assert servicer.ended == ["CancelledError"]


async def test_readiness_cannot_come_back_while_stopping() -> None:
    async with serving_decoder(ToyDecoder()) as (server, _):
        await server.stop()
        await server.set_ready(DECODER, True)
        assert server.not_ready_reason(DECODER) == "stopping"
        await server.stop()  # again does nothing


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(number: signal.Signals) -> None:
    servicer = GatedDecoder()
    async with serving_decoder(servicer) as (server, address), decoder_stub(address) as stub:
        serving = asyncio.create_task(server.wait_for_termination())
        running = stub.Generate(raw("wait"))
        await running.read()  # by then the signal handlers are there
        os.kill(os.getpid(), number)
        await until(lambda: server.not_ready_reason(DECODER) == "stopping")
        servicer.go_on.set()
        kinds = [event.WhichOneof("event") async for event in running]
        await serving
    assert kinds == ["delta", "finished"]


async def test_a_second_signal_ends_the_draining() -> None:
    servicer = GatedDecoder()
    async with serving_decoder(servicer, RpcSettings(drain_seconds=600)) as (server, address), decoder_stub(address) as stub:
        serving = asyncio.create_task(server.wait_for_termination())
        running = stub.Generate(raw("wait"))
        await running.read()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: server.not_ready_reason(DECODER) == "stopping")
        os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(error_from_rpc(await failure(running)), Unavailable)
        await serving


async def test_a_service_can_ask_to_stop() -> None:
    async with serving_decoder(ToyDecoder()) as (server, _):
        serving = asyncio.create_task(server.wait_for_termination())
        server.ask_to_stop()
        await serving
        assert server.not_ready_reason() == f"{DECODER}: stopping"


async def test_no_drain_and_no_calls_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_decoder(ToyDecoder(), RpcSettings(drain_seconds=0)) as (server, _):
        await server.stop()
    assert "did not end in time" not in caplog.text


async def test_calls_are_taken_for_a_while_after_the_signal_if_so_set() -> None:
    """So that those who choose among replicas see that this one is not ready before it refuses."""
    settings = RpcSettings(drain_seconds=600, drain_delay_seconds=600)
    async with serving_decoder(ToyDecoder(), settings) as (server, address), decoder_stub(address) as stub:
        serving = asyncio.create_task(server.wait_for_termination())
        await stub.Describe(DESCRIBE)  # by then the signal handlers are there
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: server.not_ready_reason(DECODER) == "stopping")
        assert await health(address, DECODER) == (NOT_SERVING, "stopping")
        assert (await stub.Describe(DESCRIBE)).model == "toy"
        os.kill(os.getpid(), signal.SIGTERM)  # a second one ends the delay too
        await serving


async def test_where_something_failed_there_is_no_such_delay() -> None:
    settings = RpcSettings(drain_seconds=600, drain_delay_seconds=600)
    async with serving_decoder(ToyDecoder(), settings) as (server, _):
        serving = asyncio.create_task(server.wait_for_termination())
        server.ask_to_stop()
        await serving


async def test_stopping_says_how_long_the_process_may_go_on() -> None:
    told: list[float] = []
    server = RpcServer(RpcSettings(drain_seconds=20, drain_delay_seconds=0.5), services=[DECODER], on_stopping=told.append)
    await server.start()
    assert told == []
    await server.stop()
    (seconds,) = told
    assert 20.5 < seconds < 60
