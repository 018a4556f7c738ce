"""From what a client is given as its server to endpoints.

"10.0.0.1:7070"                      one endpoint, handed to gRPC as it stands; so is every other gRPC target
["gpu1:7070", "gpu2:7070"]           two
"dns:///decoder.vscan:7070"          as many as the name has addresses, of a headless Service of Kubernetes: one a pod
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from vscan.errors import InvalidArgument, Unavailable
from vscan.rpc.address import Address, parse_address
from vscan_client.options import ServerLike

_DNS = "dns:///"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one replica is.

    Attributes:
        target: as gRPC connects to it; also what it is called in hashes and reports.
        authority: the name that its certificate bears, `host:port`, where that is not the target.
    """

    target: str
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Servers:
    """What a client was given."""

    fixed: tuple[Endpoint, ...]
    names: tuple[Address, ...]  # to be looked up

    @property
    def targets(self) -> list[str]:
        """Everything that was given, as gRPC's targets."""
        return [*(endpoint.target for endpoint in self.fixed), *(f"{_DNS}{name}" for name in self.names)]


def parse_servers(server: ServerLike, field: str) -> Servers:
    """Reads what a client was given; what stands there twice counts once.

    Raises:
        InvalidArgument: naming `field`: there is no address, an empty one, or a `dns:///` name without a port.
    """
    given = list(dict.fromkeys([server] if isinstance(server, str) else server))
    if not given or not all(given):
        raise InvalidArgument(field, "an address is needed, for instance 127.0.0.1:7070")
    fixed = tuple(Endpoint(each) for each in given if not each.startswith(_DNS))
    return Servers(fixed, tuple(_name(each, field) for each in given if each.startswith(_DNS)))


async def look_up(name: Address) -> list[str]:
    """The addresses of a host, of one family: of a pod that has an IPv4 and an IPv6 address both would be taken for replicas.

    The system sorts them (RFC 6724), so that the first one's family can be reached. Raises Unavailable if there are none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a name
        raise Unavailable(f"{name.host}: no address was found: {getattr(error, 'strerror', None) or error}") from error
    family = found[0][0]
    return list(dict.fromkeys(str(address[0]) for each, *_, address in found if each == family))


def endpoints_at(name: Address, hosts: Iterable[str]) -> list[Endpoint]:
    """The replicas behind a name."""
    return [Endpoint(str(Address(host, name.port)), authority=str(name)) for host in hosts]


def _name(target: str, field: str) -> Address:
    try:
        return parse_address(target.removeprefix(_DNS))
    except ValueError as error:
        raise InvalidArgument(field, f"{target!r}: {error}") from error
