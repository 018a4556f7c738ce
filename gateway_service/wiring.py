"""Makes a gateway of its settings: the only place where its parts meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway_service.app import make_app
from gateway_service.config import GatewaySettings
from gateway_service.endpoints import Gateway
from vscan.errors import InvalidArgument, StartupError
from vscan.http.server import HttpServer
from vscan.telemetry.providers import Telemetry
from vscan_client import AsyncClient, Retry, Timeout, Tls

OnStopping = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway whose port is open."""

    server: HttpServer
    address: str  # host:port


async def serve(settings: GatewaySettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None) -> None:
    """Runs a gateway until it is told to stop.

    Raises:
        StartupError: it cannot start.
    """
    async with running_gateway(settings, telemetry, on_stopping) as gateway:
        await gateway.server.wait_for_termination()


@asynccontextmanager
async def running_gateway(
    settings: GatewaySettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None
) -> AsyncIterator[RunningGateway]:
    """Opens the port; on leaving drains and stops everything.

    Raises:
        StartupError: what cannot work, on one line.
    """
    check_open(settings)
    async with make_client(settings, telemetry) as client:
        gateway = Gateway(settings, client)
        app = make_app(gateway, telemetry, hosts=settings.hosts)

        def stopping(seconds: float) -> None:
            gateway.stopping = True
            on_stopping(seconds)

        server = HttpServer(
            settings,
            app,
            path="/v1",
            on_stopping=stopping,
            idle=gateway.idle,
            end_answers=gateway.conversations.end,
        )
        try:
            yield RunningGateway(server, await server.start())
        finally:
            await server.stop()


def check_open(settings: GatewaySettings) -> None:
    """Raises StartupError where a port beyond loopback would be open to those who listen in, or to anybody."""
    if settings.max_bodies_bytes < settings.max_body_bytes:
        raise StartupError("`max_bodies_bytes` must be at least `max_body_bytes`")
    settings.check_open(
        is_guarded=settings.require_token or settings.tls_client_ca_file is not None or settings.allow_anonymous,
        guards="`require_token`, or `tls_client_ca_file` (any certificate of that CA), or `allow_anonymous`",
    )


def make_client(settings: GatewaySettings, telemetry: Telemetry) -> AsyncClient:
    """The SDK's client of the decoders. It goes from one to the next, and leaves waiting to the caller, who is told how long.

    Raises:
        StartupError: an address, a file or a token is of no use.
    """
    try:
        tls = Tls(
            ca_file=settings.decoder_tls_ca_file,
            cert_file=settings.decoder_tls_cert_file,
            key_file=settings.decoder_tls_key_file,
        )
        return AsyncClient(
            server=settings.decoder_address,
            tls=tls if settings.decoder_tls else None,
            insecure=settings.decoder_insecure,
            token_file=settings.decoder_token_file,
            timeout=Timeout(total=settings.answer_timeout_seconds),
            retry=Retry(attempts=1),
            tracer_provider=telemetry.tracer_provider,
        )
    except InvalidArgument as error:
        raise StartupError(f"the decoder: {error.message}") from error
    except ValueError as error:
        raise StartupError("`decoder_tls_cert_file` and `decoder_tls_key_file` belong together") from error
