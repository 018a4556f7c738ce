"""By which names a server may be called. A page of another site can have its own name point here (DNS rebinding): what tells is
`Host`, and `Origin`, which browsers write and scripts cannot.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator

from vscan.config import Names
from vscan.rpc.address import Address, is_loopback_host

_NAME = r"\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+"
_HOST = re.compile(rf"({_NAME})(?::[0-9]*)?", re.ASCII)
_ORIGIN = re.compile(rf"(https?)://((?:{_NAME})(?::[0-9]+)?)", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _host_name(text: str) -> str:
    if not text.isascii():
        raise ValueError(f"{text!r} is not as browsers send it, which write such names in ASCII (xn--…)")
    name = host_of(str(Address(text, 0)) if _is_ipv6(text) else text)
    if name is None or (":" in text.rpartition("]")[2] and not _is_ipv6(text)):
        raise ValueError(f"{text!r} is not a name alone, without scheme and port")
    return name


HostNames = Annotated[Names, AfterValidator(lambda names: tuple(map(_host_name, names)))]


class KnownHosts:
    """Those of loopback, and others.

    Args:
        names: of the others, as `HostNames` gives them.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def has(self, host: str | None) -> bool:
        """Whether it is one of them: what `host_of` or `host_of_origin` gave."""
        return host is not None and (is_loopback_host(host) or host in self._names)


def host_of(header: str) -> str | None:
    """The name in a `Host`: `Demo.Example.:80` → `demo.example`, `[0::1]:80` → `::1`. None where there is none."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    name = found[1].lower().removesuffix(".")
    if not name.startswith("["):
        return name
    return str(ipaddress.IPv6Address(name[1:-1])) if _is_ipv6(name[1:-1]) else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def host_of_origin(header: str) -> str | None:
    """The name in an `Origin`. None of what is no site's, as `null`."""
    found = _ORIGIN.fullmatch(header)
    return found and host_of(found[2])


def is_same_place(origin: str, host: str) -> bool:
    """Whether an `Origin` is the one that a `Host` is of: the same name and port, of which the scheme's own may be left out."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    port = _DEFAULT_PORTS[found[1].lower()]
    return found[2].lower().removesuffix(port) == host.lower().removesuffix(port)
