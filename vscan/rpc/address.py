"""Addresses, `host:port`, and whether they stay on this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_RESOLVERS = ("dns:", "ipv4:", "ipv6:")
_LOCAL_SCHEMES = ("unix:", "unix-abstract:")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. An IPv6 host has no brackets here: `::1`."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback_host(self.host)


def parse_address(text: str) -> Address:
    """`host:port`, with an IPv6 host in brackets; port 0 means any free one.

    Raises:
        ValueError: the text is not of that form.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError("not of the form host:port, for instance 127.0.0.1:7070 or [::1]:7070")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"the port {port!r} is not a number from 0 to 65535")
    return Address(host[1:-1] if bracketed else host, int(port))


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address is this machine's loopback. Other names are never looked up: they count as remote."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_target(target: str) -> bool:
    """Whether a gRPC target (`host:port`, `dns:///host:port`, `unix:path`) stays on this machine."""
    if target.startswith(_LOCAL_SCHEMES):
        return True
    for scheme in _RESOLVERS:
        target = target.removeprefix(scheme)
    hosts = target.lstrip("/").split(",")
    return all(_loopback_or_no_address(host) for host in hosts)


def _loopback_or_no_address(text: str) -> bool:
    try:
        return parse_address(text).is_loopback
    except ValueError:
        return is_loopback_host(text.strip("[]"))
