"""What a client is given as its server."""

import re
import socket

import pytest

from vscan.errors import InvalidArgument, Unavailable
from vscan.rpc.address import Address
from vscan_client import AsyncClient
from vscan_client._resolving import Endpoint, Servers, endpoints_at, look_up, parse_servers


def test_addresses_go_to_grpc_as_they_are_and_names_are_looked_up() -> None:
    one, several = (
        parse_servers("decoder:7070", "server"),
        parse_servers(["unix:/run/vscan", "b:1", "dns:///c:2", "b:1"], "server"),
    )
    assert one == Servers((Endpoint("decoder:7070"),), ())
    assert several == Servers((Endpoint("unix:/run/vscan"), Endpoint("b:1")), (Address("c", 2),))
    assert several.targets == ["unix:/run/vscan", "b:1", "dns:///c:2"]
    # A name server of one's own is gRPC's to ask.
    assert parse_servers("dns://10.0.0.53/c:2", "server").names == ()


@pytest.mark.parametrize("bad", ["", [], ["a:1", ""], "dns:///", "dns:///decoder", ["dns:///decoder:x"]])
def test_a_bad_address_is_refused_at_once(bad: str | list[str]) -> None:
    with pytest.raises(InvalidArgument, match=r"^server: "):
        AsyncClient(server=bad)
    with pytest.raises(InvalidArgument, match=r"^encoder: "):
        AsyncClient(encoder=bad)


async def test_a_name_has_addresses_of_one_family_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 7070)) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, 7070, 0, 0)) for host in ("fd00::1", "fd00::2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: four + six)
    assert await look_up(Address("decoder", 7070)) == ["10.0.0.1", "10.0.0.2"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: six + four)
    assert await look_up(Address("decoder", 7070)) == ["fd00::1", "fd00::2"]
    assert endpoints_at(Address("decoder", 7070), ["fd00::1"]) == [Endpoint("[fd00::1]:7070", "decoder:7070")]


@pytest.mark.parametrize("name", ["nowhere.invalid", "a..b", 70 * "x" + ".test"])
async def test_a_name_that_is_not_there_is_unavailable(name: str) -> None:
    with pytest.raises(Unavailable, match=f"{re.escape(name)}: no address was found"):
        await look_up(Address(name, 7070))
