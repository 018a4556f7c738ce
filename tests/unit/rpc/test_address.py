"""Addresses and whether they stay on this machine."""

from __future__ import annotations

import pytest

from vscan.rpc.address import Address, is_loopback_host, is_loopback_target, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:7070", "127.0.0.1", 7070, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:65535", "::1", 65535, True),
        ("0.0.0.0:7070", "0.0.0.0", 7070, False),
        ("[::]:7070", "::", 7070, False),
        ("192.168.1.2:7070", "192.168.1.2", 7070, False),
        ("encoder.example:7070", "encoder.example", 7070, False),
    ],
)
def test_an_address(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(text)
    assert address == Address(host, port)
    assert address.is_loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "7070", ":7070", "host", "host:", "host:x", "host:-1", "host:65536", "::1:7070", "host:٣"]
)
def test_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        parse_address(text)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:7070",
        "localhost:7070",
        "[::1]:7070",
        "dns:///localhost:7070",
        "ipv4:127.0.0.1:7070",
        "unix:/run/x.sock",
        "localhost",
    ],
)
def test_a_target_on_this_machine(target: str) -> None:
    assert is_loopback_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "encoder:7071",
        "dns:///encoder:7071",
        "ipv4:10.0.0.1:7071",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "xds:///encoder",
        "0.0.0.0:1",
        "",
    ],
)
def test_a_target_beyond_this_machine(target: str) -> None:
    assert not is_loopback_target(target)


def test_a_name_is_never_looked_up() -> None:
    assert not is_loopback_host("localhost.example")
    assert is_loopback_host("LOCALHOST")
