"""Whether a service says that it is ready; `vscan health`."""

from __future__ import annotations

from typing import Annotated, Any, Self

import grpc
import typer

from vscan.errors import Unavailable
from vscan.rpc.channel import DIRECT
from vscan_client.cli.extras import needs_extra


class HealthCheck:
    """Asks the standard health service of one address. Needs the extra `serve`."""

    def __init__(self, address: str, service: str = "", timeout_s: float = 1.0) -> None:
        from grpc_health.v1 import health_pb2_grpc

        self.why_not = ""  # the service's own reason, where it gave one, or why it was not asked
        self._service, self._timeout_s = service, timeout_s
        self._channel = grpc.insecure_channel(address, options=[DIRECT])
        self._stub: Any = health_pb2_grpc.HealthStub(self._channel)

    def is_serving(self) -> bool:
        """Whether the server, or the service of it that was named, is ready; false as well where it does not answer."""
        from grpc_health.v1 import health_pb2

        try:
            request = health_pb2.HealthCheckRequest(service=self._service)
            reply, call = self._stub.Check.with_call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            self.why_not = str(error.details()) if isinstance(error, grpc.Call) else ""
            return False
        self.why_not = str(dict(call.trailing_metadata() or ()).get("vscan-not-ready", ""))
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def health(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="A service's port for health, or its gRPC port without TLS.")
    ],
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="`liveness`, or one service; otherwise whether all of it is ready.")
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="How long to wait, in seconds.")] = 5.0,
) -> None:
    """Ask a service whether it is ready. Exit code 3 where it is not, or does not answer. For health checks of containers."""
    with needs_extra("serve", "vscan health"):
        check = HealthCheck(address, service, timeout)
    with check:
        if not check.is_serving():
            raise Unavailable(f"{address} is not serving: {check.why_not or 'no reason given'}")
    print("serving")
