"""By which names a gateway may be called."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.gateway import in_process_gateway
from tests.support.redis_server import free_port

ANYBODY = "elsewhere.example"


@pytest.mark.parametrize(
    ("bind", "allowed", "refused"),
    [
        ("127.0.0.1:0", (), {ANYBODY, "proxy.example"}),
        ("127.0.0.1:0", ("proxy.example",), {ANYBODY}),
        ("0.0.0.0:0", (), set()),
        ("0.0.0.0:0", ("proxy.example",), {ANYBODY}),  # a container's port, published to its host's loopback
    ],
)
async def test_a_name_that_is_not_its_own_is_refused(bind: str, allowed: tuple[str, ...], refused: set[str]) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with in_process_gateway(nobody, bind=bind, insecure=True, allowed_hosts=allowed) as gateway:
        url = f"http://127.0.0.1:{gateway.address.rpartition(':')[2]}/healthz"
        async with httpx2.AsyncClient() as client:
            told = {
                host: (await client.get(url, headers={"host": host})).status_code
                for host in (ANYBODY, "proxy.example", "localhost", "127.0.0.1")
            }
    assert told == {host: 403 if host in refused else 200 for host in told}
