"""A gRPC server's life: open the port or say why not, tell its health, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable, Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vscan.errors import StartupError
from vscan.rpc.address import Address, parse_address
from vscan.rpc.gate import Gate
from vscan.rpc.interceptors import inner_interceptors, outer_interceptors
from vscan.rpc.listening import check_free, server_credentials, write_ready_file
from vscan.rpc.readiness import Readiness
from vscan.rpc.settings import RpcSettings
from vscan.telemetry.providers import Telemetry

_LAST_WORDS_SECONDS = 1.0  # for statuses on their way out once the last call has ended
_INFRASTRUCTURE_CALLS = 64  # health and reflection are served beyond the services' own bound
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class RpcServer:
    """Serves the servicers that are registered on `server`.

    Args:
        settings: where and how.
        services: full names of the services, for health and reflection: `vscan.v1.Decoder`.
        telemetry: where spans and metrics of the calls go.
        interceptors: more of them, innermost, right around the servicer.

    To be made inside a running event loop.
    """

    def __init__(
        self,
        settings: RpcSettings,
        *,
        services: Sequence[str],
        telemetry: Telemetry | None = None,
        interceptors: Iterable[Any] = (),
    ) -> None:
        self._settings = settings
        self._address = parse_address(settings.bind)
        self._refuse_open_plaintext()
        self._gate = Gate(settings.max_concurrent_calls)
        self._readiness = Readiness(services)
        self._stop_asked = asyncio.Event()
        self._stopped: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self.server: grpc.aio.Server = grpc.aio.server(
            interceptors=[
                *outer_interceptors(telemetry or Telemetry()),
                self._gate,
                *inner_interceptors(settings),
                *interceptors,
            ],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls + _INFRASTRUCTURE_CALLS,
        )
        self._add_infrastructure(services)

    async def start(self) -> str:
        """Opens the port and returns the bound `host:port`. Nothing is ready until `set_ready` says so.

        Raises:
            StartupError: the address is taken or not this machine's, or the TLS files do not fit.
        """
        try:
            return await self._start()
        except StartupError:
            await self.server.stop(None)
            raise

    async def set_ready(self, service_name: str, ready: bool, why: str = "") -> None:
        """Tells the health service (and the log) that a service is ready, or not and why."""
        await self._readiness.set_ready(service_name, ready, why)

    def not_ready_reason(self, service_name: str = "") -> str:
        """Why a service, or the server as a whole, is not ready; empty if it is."""
        return self._readiness.reason(service_name)

    @property
    def running_calls(self) -> int:
        """Calls of the services being served."""
        return self._gate.running

    def ask_to_stop(self) -> None:
        """Ends `wait_for_termination`, as a signal would."""
        self._stop_asked.set()

    async def wait_for_termination(self) -> None:
        """Serves until SIGTERM, SIGINT or `ask_to_stop`, then drains as `stop` does. A second signal ends the draining."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._stop_asked.wait()
            await self.stop()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def stop(self) -> None:
        """Not ready at once, new calls refused; running ones get `drain_seconds`, then they are cancelled. Idempotent."""
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopped)

    async def _start(self) -> str:
        await self._readiness.begin()
        check_free(self._address)
        address = Address(self._address.host, self._open_port())
        await self.server.start()
        self._guard = asyncio.create_task(self._stop_with_the_loop())
        _log.info("listening on %s", address)
        if self._settings.ready_file is not None:
            write_ready_file(self._settings.ready_file, str(address))
        return str(address)

    async def _stop(self) -> None:
        await self._readiness.stop()
        self._gate.close()
        _log.info("stopping; %d calls are running", self._gate.running)
        if not await self._gate.wait_idle(self._settings.drain_seconds):
            _log.warning("%d calls did not end in time and were cancelled", self._gate.evict())
            await self._gate.wait_idle(_LAST_WORDS_SECONDS)
        await self.server.stop(_LAST_WORDS_SECONDS)
        if self._guard is not None:
            self._guard.cancel()

    async def _stop_with_the_loop(self) -> None:
        """A service that fails between `start` and `stop` must end with its own error, not with gRPC's about a closed loop."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.server.stop(None)

    def _on_signal(self, number: int) -> None:
        if self._stop_asked.is_set():
            self._gate.evict()
        _log.info("got %s", signal.Signals(number).name)
        self._stop_asked.set()

    def _add_infrastructure(self, services: Sequence[str]) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness, self.server)
        wanted = self._settings.reflection
        if wanted or (wanted is None and self._address.is_loopback):
            health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            reflection.enable_server_reflection((*services, health, reflection.SERVICE_NAME), self.server)

    def _refuse_open_plaintext(self) -> None:
        settings = self._settings
        if settings.tls_cert_file is None and not settings.insecure and not self._address.is_loopback:
            raise StartupError(
                f"plaintext on {self._address} would be open beyond this machine: "
                "set `tls_cert_file` and `tls_key_file`, or `insecure`"
            )

    def _open_port(self) -> int:
        try:
            credentials = server_credentials(self._settings)
            if credentials is None:
                return self.server.add_insecure_port(str(self._address))
            return self.server.add_secure_port(str(self._address), credentials)
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {self._address}") from error


def _options(settings: RpcSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server would share the port silently
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # the channels of vscan.rpc.channel ping every 30 s
    ]
