"""Metrics for Prometheus over HTTP, from threads; over TLS where the server has any."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from vscan.errors import StartupError
from vscan.rpc.address import Address, parse_address
from vscan.rpc.tls_files import Rotating, ServerTls

_PATIENCE_SECONDS = 10.0  # with a client that says nothing, in the handshake or after it
_MAX_REQUESTS = 16  # at once; more connections are closed

_log = logging.getLogger(__name__)


def serve_metrics(registry: CollectorRegistry, bind: str, *, tls: ServerTls | None, insecure: bool) -> Callable[[], None]:
    """Serves them from a thread; what it returns stops that.

    Args:
        bind: `host:port`.
        tls: the server's own files, followed as they change; None is plaintext.
        insecure: allow plaintext beyond loopback.

    Raises:
        StartupError: the address cannot be taken, plaintext on it would be open, or the TLS files cannot be used.
    """
    address = parse_address(bind)
    if tls is None and not insecure and not address.is_loopback:
        raise StartupError(
            f"plaintext on {address} (`metrics_bind`) would be open beyond this machine: "
            "set `tls_cert_file` and `tls_key_file`, or `insecure`"
        )
    contexts = None if tls is None else Rotating("the certificate of the metrics' port", tls.paths, tls.check)
    try:
        server = _server(address, contexts)
    except OSError as error:
        raise StartupError(f"cannot serve metrics on {bind}: {error.strerror or error}") from error
    server.set_app(make_wsgi_app(registry))
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    scheme = "http" if contexts is None else "https"
    _log.info("metrics are served on %s://%s/metrics", scheme, Address(address.host, server.server_port))
    return partial(_stop, server, thread)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, so many at most. Handshakes are made there too: in `accept` one would hold up all others."""

    daemon_threads = True
    contexts: Rotating[ssl.SSLContext] | None = None

    def __init__(self, *arguments: Any) -> None:
        self._places = BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_PATIENCE_SECONDS)
        if self.contexts is None:
            super().finish_request(request, client_address)
            return
        with self.contexts.current().wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a request for metrics failed", exc_info=True)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are no news."""


def _server(address: Address, contexts: Rotating[ssl.SSLContext] | None) -> _Server:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, socket_address = found[0]
    kind = type("_ServerOfFamily", (_Server,), {"address_family": family, "contexts": contexts})
    server: _Server = kind((socket_address[0], address.port), _Handler)
    return server


def _stop(server: _Server, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
