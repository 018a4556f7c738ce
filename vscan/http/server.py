"""The port: uvicorn with TLS that follows its files, and an end that lets answers finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from vscan.http.listener import BoundedListener, listen
from vscan.http.protocol import MAX_HEAD_BYTES, BoundedProtocol
from vscan.http.settings import HttpSettings
from vscan.rpc.address import Address, parse_address
from vscan.rpc.listening import write_ready_file
from vscan.rpc.tls_files import Rotating, ServerTls

_END_SECONDS = 5.0  # for everything that ends once the answers have
_LAST_WORDS_SECONDS = 1.0  # for what was sent last to be taken
_FIRST = asyncio.FIRST_COMPLETED
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class HttpServer:
    """Serves an application.

    Args:
        settings: where and how.
        app: the application.
        path: where on it people begin, for the log.
        on_stopping: told when it begins to stop, and for how many seconds at most that may go on.
        idle: returns once no request is being served.
        end_answers: told when what still runs must end.
    """

    def __init__(
        self,
        settings: HttpSettings,
        app: ASGIApp,
        *,
        path: str,
        on_stopping: Callable[[float], None],
        idle: Callable[[], Coroutine[Any, Any, Any]],
        end_answers: Callable[[], None],
    ) -> None:
        self._settings, self._path, self._on_stopping = settings, path, on_stopping
        self._idle, self._end_answers = idle, end_answers
        self._server = _Uvicorn(_config(settings, app), settings.header_timeout_seconds)
        self._stop_asked, self._hurried = asyncio.Event(), asyncio.Event()
        self._address = parse_address(settings.bind)
        self._serving: asyncio.Task[None] | None = None
        self._listener: BoundedListener | None = None

    @property
    def connections(self) -> int:
        """That are open, those at their handshake too."""
        return 0 if self._listener is None else self._listener.open_connections

    async def start(self) -> str:
        """Opens the port and returns the bound `host:port`.

        Raises:
            StartupError: it cannot be opened, or the TLS files do not fit.
        """
        self._server.config.load()
        self._listener = listener = listen(self._address, self._settings.max_connections)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        bound = str(Address(self._address.host, listener.getsockname()[1]))
        _log.info("serving %s://%s%s", "http" if self._settings.server_tls is None else "https", bound, self._path)
        await asyncio.wait((asyncio.ensure_future(self._server.is_open.wait()), self._serving), return_when=_FIRST)
        if self._settings.ready_file is not None:
            write_ready_file(self._settings.ready_file, bound)
        return bound

    async def wait_for_termination(self) -> None:
        """Until SIGTERM or SIGINT; from then on another one hurries `stop`."""
        assert self._serving is not None
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        stop = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait((stop, self._serving), return_when=_FIRST)
        stop.cancel()

    async def stop(self) -> None:
        """Drains: takes no more requests, lets answers go on for `drain_seconds`, then ends them."""
        if self._serving is None:
            return
        settings, serving = self._settings, self._serving
        self._on_stopping(settings.drain_delay_seconds + settings.drain_seconds + 3 * _END_SECONDS)
        await self._unhurried(settings.drain_delay_seconds)
        self._server.exit()
        waiting = [asyncio.create_task(each) for each in (self._unhurried(settings.drain_seconds), self._idle())]
        await asyncio.wait((*waiting, serving), return_when=_FIRST)
        for task in waiting:
            task.cancel()
        self._end_answers()
        # Over TLS a connection is closed once its other side has said so too, which idle clients do not.
        await asyncio.wait((serving,), timeout=_LAST_WORDS_SECONDS)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await serving

    async def _unhurried(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    def _on_signal(self, number: int) -> None:
        _log.info("got %s", signal.Signals(number).name)
        if self._stop_asked.is_set():
            self._hurried.set()
        self._stop_asked.set()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, handshake_timeout_s: float) -> None:
        super().__init__(config)
        self._handshake_timeout_s = handshake_timeout_s
        self.is_open, self._exit_asked = asyncio.Event(), asyncio.Event()

    def exit(self) -> None:
        """Takes no more connections, and returns from `serve` once those there are have ended."""
        self.should_exit = True
        self._exit_asked.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's own, whose handshakes may take a minute; and tells that it has happened."""
        config, loop = self.config, asyncio.get_running_loop()
        timeout = None if config.ssl is None else self._handshake_timeout_s
        made: Any = config.http_protocol_class
        protocol = partial(made, config=config, server_state=self.server_state, app_state={})
        self.servers = [
            await loop.create_server(protocol, sock=each, ssl=config.ssl, ssl_handshake_timeout=timeout, backlog=config.backlog)
            for each in sockets or ()
        ]
        self.started = True
        self.is_open.set()

    async def main_loop(self) -> None:
        """As uvicorn's own, but it hears of the end at once."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._exit_asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's own, which sleeps and looks now and then; where nothing is left to wait for, it is over."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # closed connections are told so then
        await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `HttpServer`'s."""
        yield


def _config(settings: HttpSettings, app: ASGIApp) -> uvicorn.Config:
    tls = settings.server_tls
    return uvicorn.Config(
        app,
        http=partial(  # type: ignore[arg-type]
            BoundedProtocol,
            header_timeout_s=settings.header_timeout_seconds,
            patience_s=settings.client_patience_seconds,
        ),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.idle_timeout_seconds,
        timeout_graceful_shutdown=int(settings.drain_seconds + _END_SECONDS),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_context_factory=None if tls is None else lambda config, default: _following(tls),
    )


def _following(tls: ServerTls) -> ssl.SSLContext:
    """A context that gives each handshake the files as they then are. Raises StartupError as `ServerTls.check` does."""
    contexts = Rotating("the server's certificate", tls.paths, tls.check)
    first = tls.check()
    # Sessions are the first context's to resume, and would be without a look at the files of now.
    first.num_tickets = 0
    first.options |= ssl.OP_NO_TICKET

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = contexts.current()

    first.sni_callback = choose
    return first
