"""Real Redis in the larger forms: a master with a replica that a Sentinel watches, and a Cluster. All on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.redis_server import START_SECONDS, RedisServer, free_port

SERVICE = "vscan"
_SLOTS = 16_384
_MASTERS = 3
_AT_ONCE = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")  # a replica is served without a file or a wait
_BUS_OFFSET = 10_000  # a Cluster's node listens there too


class SentinelServer(RedisServer):
    """Watches one master alone, and declares it dead by itself."""

    def __init__(self, folder: Path, master: RedisServer) -> None:
        super().__init__()
        self._config = folder / f"sentinel-{self.port}.conf"  # it writes there itself
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 300\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )

    def command(self) -> list[str]:
        """As a Sentinel."""
        return [self.program, str(self._config), "--sentinel"]


class WatchedRedis:
    """Master, replica and Sentinel."""

    def __init__(self, folder: Path) -> None:
        options = ["--dir", str(folder), *_AT_ONCE]
        self.master = RedisServer(options=options)
        self.replica = RedisServer(options=[*options, "--replicaof", "127.0.0.1", str(self.master.port)])
        self.sentinel = SentinelServer(folder, self.master)

    @property
    def url(self) -> str:
        """By way of the Sentinel; a first one, that is not there, must be passed over."""
        return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}/{SERVICE}/0"

    def start(self) -> None:
        """Starts all three, each when it can see the one before."""
        self.master.start()
        self.replica.start()
        with redis.Redis(port=self.replica.port) as replica:
            _until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica follows")
        self.sentinel.start()
        with redis.Redis(port=self.sentinel.port) as sentinel:
            _until(lambda: len(sentinel.sentinel_slaves(SERVICE)) == 1, "the Sentinel knows the replica")

    def stop(self) -> None:
        """Ends what runs."""
        for server in (self.sentinel, self.replica, self.master):
            server.stop()

    def replicated(self, name: str) -> bool:
        """Whether the replica has a key too: what has not reached it is lost with the master."""
        with redis.Redis(port=self.replica.port) as replica:
            return bool(replica.exists(name))

    def promoted(self) -> bool:
        """Whether the Sentinel names the former replica as master."""
        with redis.Redis(port=self.sentinel.port) as sentinel:
            return int(sentinel.sentinel_masters()[SERVICE]["port"]) == self.replica.port


class RedisClusterServers:
    """Three masters with a third of the slots each, and a replica of the first.

    With `tls` (options of redis-server) they speak it among themselves too.
    """

    def __init__(self, folder: Path, *, tls: Sequence[str] = (), program: str | None = None) -> None:
        self.nodes = [_cluster_node(folder, program) for _ in range(_MASTERS + 1)]
        self._ports = [_port_with_a_bus() for _ in self.nodes] if tls else [node.port for node in self.nodes]
        self._scheme = "rediss" if tls else "redis"
        for node, port in zip(self.nodes, self._ports, strict=True):
            node.options += ["--tls-port", str(port), "--tls-cluster", "yes", "--tls-replication", "yes", *tls] if tls else []

    @property
    def places(self) -> str:
        """The nodes but the first: whoever knows some finds all."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports[1:])

    @property
    def url(self) -> str:
        """Without a user."""
        return f"{self._scheme}+cluster://{self.places}"

    def start(self) -> None:
        """Starts the nodes, deals the slots and waits until each node knows all."""
        for node in self.nodes:
            node.start()
        clients = [redis.Redis(port=node.port) for node in self.nodes]
        for number, client in enumerate(clients[:_MASTERS]):
            first, end = (_SLOTS * edge // _MASTERS for edge in (number, number + 1))
            client.execute_command("CLUSTER ADDSLOTS", *range(first, end))
        for port in self._ports[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port)
        for client in clients:
            _until(lambda client=client: _is_whole(client), "the Cluster is whole")  # type: ignore[misc]
        clients[-1].execute_command("CLUSTER REPLICATE", clients[0].execute_command("CLUSTER MYID"))
        _until(lambda: clients[-1].info("replication").get("master_link_status") == "up", "the replica follows")
        for client in clients:
            client.close()

    def replicated(self) -> bool:
        """Whether the replica has all of what the first master has."""
        with redis.Redis(port=self.nodes[0].port) as master, redis.Redis(port=self.nodes[-1].port) as replica:
            return bool(master.dbsize() == replica.dbsize())

    def stop(self) -> None:
        """Ends the nodes."""
        for node in self.nodes:
            node.stop()


@contextmanager
def running(servers: WatchedRedis | RedisClusterServers) -> Iterator[None]:
    """Starts them, and stops them in any case."""
    try:
        servers.start()
        yield
    finally:
        servers.stop()


def _cluster_node(folder: Path, program: str | None) -> RedisServer:
    server = RedisServer(program=program)
    server.port = _port_with_a_bus()
    own = folder / str(server.port)
    own.mkdir()
    server.options += ["--cluster-enabled", "yes", "--dir", str(own), "--cluster-node-timeout", "2000"]
    server.options += ["--cluster-require-full-coverage", "no", *_AT_ONCE]
    return server


def _port_with_a_bus() -> int:
    while not _can_have_a_bus(port := free_port()):
        pass
    return port


def _can_have_a_bus(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port + _BUS_OFFSET))
            return True
    except (OSError, OverflowError):
        return False


def _is_whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    known, masters = int(text["cluster_known_nodes"]), int(text["cluster_size"])
    return bool(text["cluster_state"] == "ok" and (known, masters) == (_MASTERS + 1, _MASTERS))


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {START_SECONDS} s: {what}")
        time.sleep(0.02)
