"""Whether a service says that it is ready; `vscan health`."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import grpc
import typer

from vscan.errors import InvalidArgument, Unavailable
from vscan.rpc.channel import DIRECT
from vscan_client.cli.extras import needs_extra

# Spelled again: `vscan.rpc.readiness` has it behind a package that a gateway does without.
_LIVENESS = "liveness"


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


class HttpHealthCheck:
    """Asks what answers over HTTP: `/healthz` of a gateway for its liveness, else `/readyz`; a path of the URL's own wins.

    Certificates are not looked at, as kubelet does not: what is asked is this machine's or pod's own, under another name than
    its certificate's, and no secret is shown.
    """

    def __init__(self, url: str, service: str = "", timeout_s: float = 1.0) -> None:
        self.why_not = ""
        parts = urlsplit(url)
        path = parts.path or ("/healthz" if service == _LIVENESS else "/readyz")
        self._url, self._timeout_s = parts._replace(path=path).geturl(), timeout_s
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        directly = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(directly, urllib.request.HTTPSHandler(context=trusting))

    def is_serving(self) -> bool:
        """Whether the answer is 200; false as well where there is none."""
        try:
            with self._opener.open(self._url, timeout=self._timeout_s):
                return True
        except urllib.error.HTTPError as error:
            self.why_not = f"status {error.code}"
            with error, suppress(ValueError, TypeError, LookupError):
                self.why_not += f", {json.loads(error.read(65_536))['error']['message']}"
        except (OSError, HTTPException, ValueError) as error:
            self.why_not = str(getattr(error, "reason", error))
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opener.close()


def health(
    address: Annotated[
        str,
        typer.Argument(
            metavar="HOST:PORT|URL",
            help="A service's port for health, or its gRPC port without TLS; of a gateway http://HOST:PORT, or https.",
        ),
    ],
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="`liveness`, or one service; otherwise whether all of it is ready.")
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="How long to wait, in seconds.")] = 5.0,
) -> None:
    """Ask a service whether it is ready. Exit code 3 where it is not, or does not answer. For health checks of containers."""
    with needs_extra("serve", "vscan health"), _check(address, service, timeout) as check:
        if not check.is_serving():
            raise Unavailable(f"{address} is not serving: {check.why_not or 'no reason given'}")
    print("serving")


def _check(address: str, service: str, timeout_s: float) -> HealthCheck | HttpHealthCheck:
    if not address.startswith(("http://", "https://")):
        return HealthCheck(address, service, timeout_s)
    try:
        return HttpHealthCheck(address, service, timeout_s)
    except ValueError as error:
        raise InvalidArgument("URL", f"{address}: {error}") from error
