"""A gRPC server's life: open the port or say why not, tell its health, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vscan.errors import StartupError
from vscan.heartbeat import Heartbeat
from vscan.rpc.address import Address, parse_address
from vscan.rpc.certificate_end import tell_end
from vscan.rpc.gate import Gate
from vscan.rpc.health import HealthPort, HealthServicer
from vscan.rpc.identities import Identities
from vscan.rpc.identity_book import IdentityBook
from vscan.rpc.infrastructure import InfrastructureGate
from vscan.rpc.interceptors import inner_interceptors, outer_interceptors
from vscan.rpc.listening import check_free, server_certificates, server_credentials, write_ready_file
from vscan.rpc.liveness import Liveness
from vscan.rpc.readiness import Readiness
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant_limits import TenantAllowances, TenantCounts
from vscan.telemetry.metrics import CertificateMetrics, ReadyMetrics
from vscan.telemetry.providers import Telemetry

_LAST_WORDS_SECONDS = 1.0  # for statuses on their way out once the last call has ended
_END_SECONDS = 15.0  # for everything that ends once the calls have
_REFUSED_AT_ONCE = 1000
_NEVER_MS = 2**31 - 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class RpcServer:
    """Serves the servicers that are registered on `server`.

    Args:
        settings: where and how.
        services: full names of the services, for health and reflection: `vscan.v1.Decoder`.
        telemetry: where spans and metrics of the calls go.
        interceptors: more of them, innermost, right around the servicer.
        on_stopping: told once it begins to stop, and again if hurried, for how many seconds at most the process may go on.
        identities_unfit: says why a version of the identities file must not be used here; None if it may be.

    To be made inside a running event loop.
    """

    def __init__(
        self,
        settings: RpcSettings,
        *,
        services: Sequence[str],
        telemetry: Telemetry | None = None,
        interceptors: Iterable[Any] = (),
        on_stopping: Callable[[float], None] = lambda seconds: None,
        identities_unfit: Callable[[Identities], str | None] = lambda identities: None,
    ) -> None:
        self._settings = settings
        self._on_stopping = on_stopping
        self._address = parse_address(settings.bind)
        self._refuse_open_plaintext()
        self._refuse_open_to_anybody()
        identities = settings.identities_file
        self._book = None if identities is None else IdentityBook(identities, why_not=identities_unfit)
        self.tenant_counts = TenantCounts(TenantAllowances(settings, self.identities))
        telemetry = telemetry or Telemetry()
        self._certificate_metrics = CertificateMetrics(telemetry.meter)
        self._gate = Gate(settings.max_concurrent_calls)
        self._readiness = Readiness(services, ReadyMetrics(telemetry.meter).ready)
        self._liveness = Liveness(self._readiness, stall_seconds=settings.stall_seconds)
        self._health_port = _health_port(settings, self._readiness)
        self._stop_asked = asyncio.Event()
        self._signals = 0
        self._hurried = asyncio.Event()
        self._stopped: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self.server: grpc.aio.Server = grpc.aio.server(
            interceptors=[
                InfrastructureGate(),
                *outer_interceptors(settings, telemetry),
                self._gate,
                *inner_interceptors(settings, telemetry, self.identities, self.tenant_counts),
                *interceptors,
            ],
            # Without `maximum_concurrent_rpcs`: it counts calls whose replies are not read while their connection lives.
            # The gates count each call before anything of it is read.
            options=_options(settings),
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
            await self._close(None)
            raise

    async def set_ready(self, service_name: str, ready: bool, why: str = "") -> None:
        """Tells the health service (and the log) that a service is ready, or not and why."""
        self._readiness.set_ready(service_name, ready, why)

    def watch_over(self, *hearts: Heartbeat) -> None:
        """Whether these workers get anywhere decides from now on whether the process is alive and anything is ready."""
        self._liveness.watch(hearts)

    def not_ready_reason(self, service_name: str = "") -> str:
        """Why a service, or the server as a whole, is not ready; empty if it is."""
        return self._readiness.reason(service_name)

    def identities(self) -> Identities | None:
        """Who may call now; None where there is no identities file."""
        return self._book.now if self._book else None

    @property
    def running_calls(self) -> int:
        """Calls of the services being served."""
        return self._gate.running

    def ask_to_stop(self) -> None:
        """Ends `wait_for_termination`, as a signal would."""
        self._stop_asked.set()

    async def wait_for_termination(self) -> None:
        """Serves until SIGTERM, SIGINT or `ask_to_stop`, then drains as `stop` does.

        A second signal ends the draining at once. Once that is over, signals do what they do by default.
        """
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
        """Not ready at once, no new calls; running ones get `drain_seconds`, then they are cancelled. Idempotent."""
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopped)

    async def _start(self) -> str:
        check_free(self._address)
        address = Address(self._address.host, self._open_port())
        if self._health_port is not None:
            _log.info("health is served on %s too", await self._health_port.start())
        await self.server.start()
        self._background += [asyncio.create_task(self._stop_with_the_loop()), asyncio.create_task(self._liveness.run())]
        if self._book:
            self._book.start()
        _log.info("listening on %s", address)
        if self._settings.ready_file is not None:
            write_ready_file(self._settings.ready_file, str(address))
        return str(address)

    async def _stop(self) -> None:
        settings = self._settings
        self._on_stopping(settings.drain_delay_seconds + settings.drain_seconds + _END_SECONDS)
        self._readiness.stop()
        _log.info("stopping; %d calls are running", self._gate.running)
        if self._signals:  # where something has failed calls are better off elsewhere at once
            await self._wait_unhurried(settings.drain_delay_seconds)
        # Tells clients to go elsewhere: refused call by call they would come again, and those that cannot retry would fail.
        leaving = asyncio.create_task(self.server.stop(settings.drain_seconds + _END_SECONDS))
        if not await self._gate.wait_idle(0.0 if self._hurried.is_set() else settings.drain_seconds):
            _log.warning("%d calls did not end in time and were cancelled", self._gate.evict())
            await self._gate.wait_idle(_LAST_WORDS_SECONDS)
        self._gate.close()  # to calls that had been on their way
        await self._close(_LAST_WORDS_SECONDS)
        await leaving

    async def _close(self, grace_seconds: float | None) -> None:
        await self.server.stop(grace_seconds)
        if self._health_port is not None:
            await self._health_port.stop()
        if self._book:
            await self._book.aclose()
        for task in self._background:
            task.cancel()

    async def _wait_unhurried(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _stop_with_the_loop(self) -> None:
        """A service that fails between `start` and `stop` must end with its own error, not with gRPC's about a closed loop."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.server.stop(None)
            if self._health_port is not None:
                await self._health_port.stop()

    def _on_signal(self, number: int) -> None:
        _log.info("got %s", signal.Signals(number).name)
        self._signals += 1
        if self._stop_asked.is_set():
            self._hurried.set()
            self._gate.evict()
            self._on_stopping(_END_SECONDS)
        self._stop_asked.set()

    def _add_infrastructure(self, services: Sequence[str]) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(self._readiness, reasons=True), self.server)
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

    def _refuse_open_to_anybody(self) -> None:
        settings = self._settings
        said = settings.identities_file or settings.tls_client_ca_file or settings.allow_anonymous or settings.insecure
        if not said and not self._address.is_loopback:
            raise StartupError(
                f"anybody could call {self._address}: set `identities_file`, "
                "or `tls_client_ca_file` (any certificate of that CA), or `allow_anonymous`"
            )

    def _open_port(self) -> int:
        try:
            tls = self._settings.server_tls
            if tls is None:
                return self.server.add_insecure_port(str(self._address))
            certificates = server_certificates(tls)
            credentials = server_credentials(certificates, wants_certificates=tls.client_ca_file is not None)
            port = self.server.add_secure_port(str(self._address), credentials)
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {self._address}") from error
        ends = tell_end(lambda: certificates.current().ends_s, self._certificate_metrics.ends)
        self._background.append(asyncio.create_task(ends))
        return port


def _health_port(settings: RpcSettings, readiness: Readiness) -> HealthPort | None:
    return None if settings.health_bind is None else HealthPort(parse_address(settings.health_bind), readiness)


def _options(settings: RpcSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server would share the port silently
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        # Of one connection. Far more than are served: the gate refuses with a delay, gRPC at this bound cuts some without.
        ("grpc.max_concurrent_streams", settings.max_concurrent_calls * 4 + _REFUSED_AT_ONCE),
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(settings.max_connection_grace_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(settings.max_connection_idle_seconds)),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),  # finds a client that vanished without a word
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # what gRPC waits for the answer to a ping, whatever the line above says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # the channels of vscan.rpc.channel ping every 15 s
        ("grpc.http2.max_ping_strikes", 2),  # who pings more often is cut off
    ]


def _milliseconds(seconds: float) -> int:
    """As gRPC takes it: its largest number means never."""
    return int(min(seconds * 1000, _NEVER_MS))
