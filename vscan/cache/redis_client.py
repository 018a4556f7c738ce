"""Opens a Redis client as the settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from vscan.cache.redis_address import RedisAddress, Topology, parse_redis_url
from vscan.cache.settings import CacheSettings, read_secret

# A connection that a restarted Redis left half open costs one more try, not a fault.
_TRIES_AGAIN = 1
# Of its time, for a Cluster's client to see itself that a node is silent: only then does it ask the others who took its place.
_NODE_SHARE = 0.75
# Of a Cluster, at once in place of a pipeline that failed.
_SINGLE_COMMANDS = 8


class RedisClient:
    """One server, found by Sentinels or not."""

    def __init__(self, redis: Redis | RedisCluster, sentinel: Sentinel | None = None) -> None:
        self.redis = redis
        self._sentinel = sentinel

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Values in the order of `names`, one round trip. What is no string counts as none."""
        return _strings(await self.redis.mget(names), len(names))

    async def exist(self, names: Sequence[str]) -> list[bool]:
        """Whether each name is there, one round trip."""
        found = await self._for_each("EXISTS", names)
        return [bool(number) for number, _ in zip(found, names, strict=True)]

    async def unlink(self, names: Sequence[str]) -> None:
        """Removes names, one round trip."""
        await self._for_each("UNLINK", names)

    async def set(self, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """Sets a value that expires."""
        await self.redis.set(name, value, ex=ttl_seconds)

    async def run(self, script: str, names: Sequence[str], *arguments: str | int | bytes) -> int:
        """Runs a Lua script that answers a number. All names must lie in one slot of a Cluster.

        Sent as text each time: Redis keeps what it has compiled, and a new master need not know scripts by their digest.
        """
        return int(await self.redis.eval(script, len(names), *names, *arguments))

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.redis.aclose()
        for sentinel in self._sentinel.sentinels if self._sentinel is not None else ():
            await sentinel.aclose()

    async def _for_each(self, command: str, names: Sequence[str]) -> list[Any]:
        """A command's answer for each name, from one pipeline."""
        pipeline = self.redis.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(command, name)
        return list(await pipeline.execute())


class ClusterClient(RedisClient):
    """A Cluster: several names are one pipeline a node, all nodes at once."""

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """See RedisClient; what lies on a node that is away counts as none, unless that is all."""
        return _strings(await self._for_each("GET", names), len(names))

    async def aclose(self) -> None:
        """Closes the connections, also those that the library forgets when it is closed after a fault."""
        await self.redis.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self.redis.nodes_manager.aclose(nodes)

    async def _for_each(self, command: str, names: Sequence[str]) -> list[Any]:
        answers = [] if len(names) == 1 else await self._pipelined(command, names)
        # After a failed pipeline the library learns the Cluster anew through the node that is away, and fails for good;
        # after a single command it goes to another one.
        lacking = [index for index in range(len(names)) if not answers or isinstance(answers[index], Exception)]
        answers = answers or [None] * len(names)
        for start in range(0, len(lacking), _SINGLE_COMMANDS):
            some = lacking[start : start + _SINGLE_COMMANDS]
            single = (self.redis.execute_command(command, names[index]) for index in some)
            for index, answer in zip(some, await asyncio.gather(*single, return_exceptions=True), strict=True):
                answers[index] = None if _is_no_string(answer) else answer
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(errors) == len(names):
            raise errors[0]
        return [None if isinstance(answer, BaseException) else answer for answer in answers]

    async def _pipelined(self, command: str, names: Sequence[str]) -> list[Any]:
        pipeline = self.redis.pipeline()
        for name in names:
            pipeline.execute_command(command, name)
        try:
            return list(await pipeline.execute(raise_on_error=False))
        except RedisError:
            return []


def _strings(answers: object, count: int) -> list[bytes | None]:
    """Raises InvalidResponse where it is not so many strings: what answers is no Redis, or answers somebody else."""
    if not isinstance(answers, list) or len(answers) != count:
        raise InvalidResponse(f"not a list of {count}")
    if any(answer is not None and not isinstance(answer, bytes) for answer in answers):
        raise InvalidResponse("not a list of strings")
    return answers


def _is_no_string(answer: object) -> bool:
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def open_client(settings: CacheSettings) -> RedisClient:
    """A client of `redis_url`, with password and certificates from their files; connects on first use.

    It has no deadline of its own for a whole operation, and no bound on how many run: whoever uses it sets both.
    """
    address = parse_redis_url(settings.redis_url)
    match address.topology:
        case Topology.SINGLE:
            return _open_single(settings)
        case Topology.SENTINEL:
            return _open_sentinel(settings, address)
        case Topology.CLUSTER:
            return _open_cluster(settings, address)


def _open_single(settings: CacheSettings) -> RedisClient:
    options = {**_common(settings), **_tls_files(settings), **_password(settings)}
    return RedisClient(Redis.from_pool(ConnectionPool.from_url(settings.redis_url, **options)))


def _open_sentinel(settings: CacheSettings, address: RedisAddress) -> RedisClient:
    tls = {"ssl": True, **_tls_files(settings)} if address.tls else {}
    # A silent Sentinel must leave time to ask the next one.
    patience_seconds = settings.redis_timeout_ms / 1000 / (len(address.nodes) + 1)
    own: dict[str, Any] = {
        **tls,
        "socket_timeout": patience_seconds,
        "socket_connect_timeout": patience_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if settings.redis_sentinel_password_file:
        own["password"] = read_secret(settings.redis_sentinel_password_file, "redis_sentinel_password_file").decode()
        own["username"] = settings.redis_sentinel_username
    sentinel = Sentinel([(node.host, node.port) for node in address.nodes], sentinel_kwargs=own)
    options = {**_common(settings), **tls, **_credentials(settings, address), "db": address.db}
    return RedisClient(sentinel.master_for(address.service, **options), sentinel)


def _open_cluster(settings: CacheSettings, address: RedisAddress) -> RedisClient:
    tls = {"ssl": True, **_tls_files(settings)} if address.tls else {}
    node_seconds = settings.redis_timeout_ms / 1000 * _NODE_SHARE
    options = {**_common(settings), **tls, **_credentials(settings, address)}
    options |= {"socket_timeout": node_seconds, "socket_connect_timeout": node_seconds}
    options["max_connections"] = settings.redis_connections * _SINGLE_COMMANDS
    return ClusterClient(
        RedisCluster(
            startup_nodes=[ClusterNode(node.host, node.port) for node in address.nodes],
            require_full_coverage=False,  # half a cache is better than none
            **options,
        )
    )


def _common(settings: CacheSettings) -> dict[str, Any]:
    return {
        "max_connections": settings.redis_connections,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), _TRIES_AGAIN),
        "protocol": 2,  # the commands used here gain nothing from RESP3, and RESP2 saves a round trip
    }


def _credentials(settings: CacheSettings, address: RedisAddress) -> dict[str, Any]:
    return {"username": address.username, "password": address.password, **_password(settings)}


def _password(settings: CacheSettings) -> dict[str, Any]:
    if settings.redis_password_file is None:
        return {}
    return {"password": read_secret(settings.redis_password_file, "redis_password_file").decode()}


def _tls_files(settings: CacheSettings) -> dict[str, Any]:
    files = {
        "ssl_ca_certs": settings.redis_tls_ca_file,
        "ssl_certfile": settings.redis_tls_cert_file,
        "ssl_keyfile": settings.redis_tls_key_file,
    }
    return {name: str(path) for name, path in files.items() if path}
