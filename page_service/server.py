"""A running page: its port, and the clients that it asks with."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from page_service.app import make_app
from page_service.config import PageSettings, check_open
from vscan.errors import StartupError
from vscan.rpc.address import Address, parse_address
from vscan.rpc.listening import check_free, write_ready_file
from vscan.telemetry.providers import Telemetry
from vscan_client import AsyncClient, Retry, Timeout

_MAX_HEAD_BYTES = 64 * 1024
_MAX_CONNECTIONS = 256
_IDLE_S = 30
_DRAIN_S = 2
_log = logging.getLogger(__name__)


async def serve(settings: PageSettings, telemetry: Telemetry) -> None:
    """Runs a page until SIGTERM or SIGINT. Raises StartupError as `running_page` does."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_page(settings, telemetry) as address:
        scheme = "http" if settings.tls_cert_file is None else "https"
        print(f"page  {scheme}://{address}/", flush=True)
        await stop.wait()


@asynccontextmanager
async def running_page(settings: PageSettings, telemetry: Telemetry | None = None) -> AsyncIterator[str]:
    """A page that is served meanwhile, at the address (`host:port`) that is given.

    Raises:
        StartupError: what cannot work, on one line.
    """
    check_open(settings)
    address = parse_address(settings.bind)
    check_free(address)
    async with (
        _client(settings, telemetry, Retry(attempts=1)) as client,
        _client(settings, telemetry, Retry(attempts=3)) as patient,
    ):
        server = _Server(_config(settings, client, patient))
        with _listening(address) as listener:
            bound = str(Address(address.host, listener.getsockname()[1]))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await asyncio.wait((asyncio.ensure_future(server.is_open.wait()), serving), return_when=asyncio.FIRST_COMPLETED)
                if settings.ready_file is not None:
                    write_ready_file(settings.ready_file, bound)
                yield bound
            finally:
                server.should_exit = True
                await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_open = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells that it has happened."""
        await super().startup(sockets)
        self.is_open.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `serve`'s."""
        yield


def _client(settings: PageSettings, telemetry: Telemetry | None, retry: Retry) -> AsyncClient:
    return AsyncClient(
        server=settings.decoder_address,
        encoder=settings.encoder_address or None,
        tls=settings.decoder_tls,
        insecure=settings.decoder_insecure,
        token_file=settings.decoder_token_file,
        timeout=Timeout(total=settings.answer_seconds),
        retry=retry,
        tracer_provider=telemetry.tracer_provider if telemetry else None,
    )


def _config(settings: PageSettings, client: AsyncClient, patient: AsyncClient) -> uvicorn.Config:
    tls: dict[str, Any] = {}
    if settings.tls_cert_file is not None:
        needed = settings.tls_client_ca_file is not None
        tls = {
            "ssl_certfile": settings.tls_cert_file,
            "ssl_keyfile": settings.tls_key_file,
            "ssl_ca_certs": settings.tls_client_ca_file,
            "ssl_cert_reqs": ssl.CERT_REQUIRED if needed else ssl.CERT_NONE,
        }
    config = uvicorn.Config(
        make_app(settings, client, patient),
        http="h11",
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        **tls,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise StartupError(f"`tls_cert_file`: the files of TLS cannot be used: {error}") from error
    return config


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    family, *_, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(target)
        except OSError as error:
            raise StartupError(f"cannot listen on {address}: {error.strerror}") from error
        yield listener
