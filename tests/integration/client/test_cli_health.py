"""`vscan health`: what a container's health check runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.certificates import Authority
from tests.support.client_cli import Ran, vscan
from tests.support.gateway import in_process_gateway
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


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_gateway_is_asked_over_http(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{free_port()}")
    issued = Authority(tmp_path).issue("gateway.example")  # asked by another name than its certificate's
    tls: dict[str, Any] = {"tls_cert_file": issued.cert_file, "tls_key_file": issued.key_file} if scheme == "https" else {}
    async with in_process_gateway(f"127.0.0.1:{free_port()}", **tls) as gateway:
        url = f"{scheme}://{gateway.address}"
        alive, unready, lost = await ask(url, "--service", "liveness"), await ask(url), await ask(f"{url}/nowhere")
    gone, wrong = await ask(url), await ask("http://[")
    assert (alive.code, alive.out) == (0, "serving\n")
    assert unready.code == lost.code == gone.code == 3
    assert (wrong.code, wrong.one_line) == (2, "vscan: URL: http://[: Invalid IPv6 URL")
    assert "is not serving: status 503, " in unready.one_line  # it has no decoder, and says so
    assert "status 404" in lost.one_line
    assert "refused" in gone.one_line
