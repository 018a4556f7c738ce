"""`grpc.health.v1.Health`, on the services' own port and on one for it alone.

Not the servicer of grpcio-health-checking: there a watcher that does not read holds up every change of state, and with it the
server's end; and one that leaves takes with it what the others wait for.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vscan.errors import StartupError
from vscan.rpc.address import Address
from vscan.rpc.infrastructure import MAX_CALLS, InfrastructureGate
from vscan.rpc.listening import check_free
from vscan.rpc.readiness import Readiness

NOT_READY_KEY = "vscan-not-ready"  # trailing metadata of a Check that answers NOT_SERVING
MAX_WATCHES = 32
_MAX_CONNECTIONS = 32  # of the port for health alone
_MAX_MESSAGE_BYTES = 1024
_MAX_METADATA_BYTES = 4096


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers probes.

    Args:
        readiness: the state to tell.
        reasons: say why something is not ready. It may name addresses, so not to everybody.
    """

    def __init__(self, readiness: Readiness, *, reasons: bool) -> None:
        self._readiness = readiness
        self._reasons = reasons
        self._watches = 0

    async def Check(self, request: Any, context: Any) -> Any:
        """The state now."""
        status = self._readiness.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        if self._reasons and (why := self._readiness.reason(request.service)):
            context.set_trailing_metadata(((NOT_READY_KEY, _ascii(why)),))
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:
        """The state now and after each change. A watcher that is slow to read misses what came and went meanwhile."""
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} watch already")
        self._watches += 1
        try:
            await self._write_changes(request.service, context)
        finally:
            self._watches -= 1

    async def _write_changes(self, service: str, context: Any) -> None:
        told = None
        while True:
            change = self._readiness.change
            status = self._readiness.status(service)
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await change.wait()


class HealthPort:
    """A plaintext port for probes alone. It serves nothing else, takes small messages from few, and tells no reasons."""

    def __init__(self, address: Address, readiness: Readiness) -> None:
        self._address = address
        self._server = grpc.aio.server(interceptors=[InfrastructureGate()], options=_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(readiness, reasons=False), self._server)

    async def start(self) -> str:
        """Opens it and returns the bound `host:port`. Raises StartupError if the address is taken or not this machine's."""
        check_free(self._address)
        try:
            port = self._server.add_insecure_port(str(self._address))
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {self._address}") from error
        await self._server.start()
        return str(Address(self._address.host, port))

    async def stop(self) -> None:
        """Closes it. Idempotent."""
        await self._server.stop(None)


_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CALLS),
    ("grpc.max_allowed_incoming_connections", _MAX_CONNECTIONS),
    ("grpc.max_connection_idle_ms", 60_000),  # each probe of a kubelet is a connection of its own
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


def _ascii(text: str) -> str:
    """What metadata may hold: printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
