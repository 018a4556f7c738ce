"""Whether a service says that it is ready."""

from __future__ import annotations

from typing import Any, Self

import grpc


class HealthCheck:
    """Asks the standard health service of one address. Needs the extra `serve`."""

    def __init__(self, address: str) -> None:
        from grpc_health.v1 import health_pb2_grpc

        self.why_not = ""  # the service's own reason, where it gave one
        self._channel = grpc.insecure_channel(address)
        self._stub: Any = health_pb2_grpc.HealthStub(self._channel)

    def is_serving(self) -> bool:
        """Whether the server as a whole is ready; false as well where it does not answer."""
        from grpc_health.v1 import health_pb2

        try:
            reply, call = self._stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        self.why_not = str(dict(call.trailing_metadata() or ()).get("vscan-not-ready", ""))
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
