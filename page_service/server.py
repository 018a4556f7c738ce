"""A running page: its port, and the clients that it asks with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from page_service.app import make_app
from page_service.asking import Asking
from page_service.config import PageSettings
from page_service.health import Health
from vscan.errors import InvalidArgument, StartupError
from vscan.http.server import HttpServer
from vscan.telemetry.providers import Telemetry
from vscan_client import AsyncClient, Retry, Timeout

OnStopping = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RunningPage:
    """A page whose port is open."""

    server: HttpServer
    address: str  # host:port


async def serve(settings: PageSettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None) -> None:
    """Runs a page until it is told to stop. Raises StartupError as `running_page` does."""
    async with running_page(settings, telemetry, on_stopping) as page:
        scheme = "http" if settings.server_tls is None else "https"
        print(f"page  {scheme}://{page.address}/", flush=True)
        await page.server.wait_for_termination()


@asynccontextmanager
async def running_page(
    settings: PageSettings, telemetry: Telemetry | None = None, on_stopping: OnStopping = lambda seconds: None
) -> AsyncIterator[RunningPage]:
    """Opens the port; on leaving drains and stops everything.

    Raises:
        StartupError: what cannot work, on one line.
    """
    settings.check_open(
        is_guarded=settings.tls_client_ca_file is not None or settings.allow_anonymous,
        guards="`tls_client_ca_file`, or `allow_anonymous`",
    )
    async with (
        _client(settings, telemetry, Retry(attempts=3)) as patient,
        _client(settings, telemetry, Retry(attempts=1)) as decoder,
        # A client of both describes both or none.
        _client(settings, telemetry, Retry(attempts=1), encoder=settings.encoder_address or None) as both,
    ):
        asking = Asking(settings, patient)
        app = make_app(settings, Health(settings, decoder, both), asking)
        server = HttpServer(settings, app, path="/", on_stopping=on_stopping, idle=asking.idle, end_answers=asking.end)
        try:
            yield RunningPage(server, await server.start())
        finally:
            await server.stop()


def _client(
    settings: PageSettings, telemetry: Telemetry | None, retry: Retry, *, encoder: tuple[str, ...] | None = None
) -> AsyncClient:
    try:
        return AsyncClient(
            server=settings.decoder_address,
            encoder=encoder,
            tls=settings.decoder_tls,
            insecure=settings.decoder_insecure,
            token_file=settings.decoder_token_file,
            timeout=Timeout(total=settings.answer_seconds),
            retry=retry,
            tracer_provider=telemetry.tracer_provider if telemetry else None,
        )
    except InvalidArgument as error:
        raise StartupError(f"the services: {error.message}") from error
