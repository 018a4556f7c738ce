"""Which Redis a URL means.

    redis://user:password@host:6379/0                         one server; rediss:// with TLS; unix:///path for a socket
    redis+sentinel://user:password@host:26379,host:26379/name/0   the master that the Sentinels call `name`
    redis+cluster://user:password@host:6379,host:6379         a Cluster, found through any of these nodes

`rediss+sentinel` and `rediss+cluster` speak TLS with all of them. User and password are those of the data servers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qs, unquote, urlsplit

from vscan.rpc.address import Address, is_loopback_host, parse_address

_PLAIN_SCHEMES = ("redis", "rediss", "unix")
_KNOWN = "redis://, rediss:// and unix://, redis+sentinel:// and redis+cluster:// and these with rediss are known"


class Topology(Enum):
    """How many servers there are, and who says which one to ask. The value is that of the URL's scheme, and its usual port."""

    SINGLE = ("", 6379)
    SENTINEL = ("sentinel", 26379)
    CLUSTER = ("cluster", 6379)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. Of one server only what must be known before connecting: redis-py reads the URL itself."""

    topology: Topology
    nodes: tuple[Address, ...]  # none of a unix socket
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str = ""  # the master's name at the Sentinels
    db: int = 0

    @property
    def is_local(self) -> bool:
        """Whether it is known to stay on this machine. Sentinels and Clusters name further servers, so of them it is not."""
        return self.topology is Topology.SINGLE and all(is_loopback_host(node.host) for node in self.nodes)


def parse_redis_url(url: str) -> RedisAddress:
    """Raises ValueError with a text that shows nothing of the URL but its scheme: the rest may hold a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("not a URL")
    base, _, kind = scheme.partition("+")
    topology = next((each for each in Topology if each.value[0] == kind), None)
    if topology is None or base not in _PLAIN_SCHEMES or (kind and base == "unix"):
        raise ValueError(f"scheme {scheme!r}; {_KNOWN}")
    if topology is Topology.SINGLE:
        return _single(url, base)
    credentials, _, places = rest.rpartition("@")
    hosts, _, path = places.partition("/")
    if any(mark in places for mark in "?#"):
        raise ValueError("a query or a fragment, which only the URL of one server may have")
    username, colon, password = credentials.partition(":")
    service, db = _path(topology, path)
    return RedisAddress(
        topology,
        _nodes(hosts, topology),
        tls=base == "rediss",
        username=unquote(username) or None,
        password=unquote(password) if colon else None,
        service=service,
        db=db,
    )


def has_password(url: str) -> bool:
    """Whether a URL that may be a bad one holds a password: before the host, or among the parameters of one server's URL."""
    rest = url.partition("://")[2]
    credentials, at, _ = rest.rpartition("@")
    parameters = parse_qs(rest.partition("?")[2], keep_blank_values=True)
    return bool(at and credentials.partition(":")[2]) or "password" in parameters


def _single(url: str, scheme: str) -> RedisAddress:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("not a URL") from error
    if scheme == "unix":
        return RedisAddress(Topology.SINGLE, ())
    if not host:
        raise ValueError("no host")
    return RedisAddress(Topology.SINGLE, (Address(host, port or Topology.SINGLE.value[1]),), tls=scheme == "rediss")


def _nodes(hosts: str, topology: Topology) -> tuple[Address, ...]:
    if not hosts:
        raise ValueError("no host")
    return tuple(_node(text, number, topology.value[1]) for number, text in enumerate(hosts.split(","), start=1))


def _node(text: str, number: int, usual_port: int) -> Address:
    has_port = ":" in text.rpartition("]")[2]
    try:
        return parse_address(text if has_port else f"{text}:{usual_port}")
    except ValueError as error:
        raise ValueError(f"host {number} is not of the form host, host:port or [host]:port") from error


def _path(topology: Topology, path: str) -> tuple[str, int]:
    """Service and database number. A Cluster has neither."""
    parts = [unquote(part) for part in path.split("/")] if path else []
    if topology is Topology.CLUSTER:
        if [part for part in parts if part != "0"]:
            raise ValueError("a Cluster has the database 0 alone")
        return "", 0
    service, db = (*parts, "", "")[:2]
    if not service or len(parts) > 2:
        raise ValueError("the name of the Sentinels' master is missing: redis+sentinel://host:26379/NAME or …/NAME/0")
    if not (db or "0").isdecimal():
        raise ValueError("the database is not a number")
    return service, int(db or "0")
