"""`vscan health`: what a container's health check runs."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.client_cli import Ran, vscan
from tests.support.redis_server import free_port
from vscan.rpc.channel import open_channel
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings

SERVING = health_pb2.HealthCheckResponse.SERVING


async def ask(*arguments: object) -> Ran:
    return await asyncio.to_thread(vscan, "health", *arguments)


async def test_it_says_by_its_exit_code_whether_a_service_is_ready() -> None:
    server = RpcServer(RpcSettings(), services=["vscan.v1.Decoder"])
    address = await server.start()
    try:
        unready, alive = await ask(address), await ask(address, "--service", "liveness")
        await server.set_ready("vscan.v1.Decoder", True)
        ready, unknown = await ask(address), await ask(address, "--service", "vscan.v1.Nobody")
    finally:
        await server.stop()
    assert (alive.code, alive.out) == (0, "serving\n")
    assert (ready.code, ready.out) == (0, "serving\n")
    assert (unready.code, unready.out) == (3, "")
    assert "is not serving" in unready.one_line
    assert unknown.code == 3
    assert "no such service" in unknown.one_line


async def test_a_proxy_for_the_web_has_no_part_in_what_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker gives containers the proxy of whoever runs it."""
    server = RpcServer(RpcSettings(), services=[])
    address = await server.start()
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    try:
        assert (await ask(address, "--service", "liveness")).code == 0
        async with open_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service="liveness")
            assert (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)).status == SERVING
    finally:
        await server.stop()


def test_a_port_where_nobody_listens_is_not_serving() -> None:
    ran = vscan("health", f"127.0.0.1:{free_port()}", "--timeout", "0.5")
    assert ran.code == 3
    assert "is not serving" in ran.one_line
