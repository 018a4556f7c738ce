"""What a server says of its health: which services are ready, and why not; whether the process is of use at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from grpc_health.v1 import health_pb2

LIVENESS = "liveness"  # a service name of the health service: NOT_SERVING means that only a restart helps
_STARTING = "starting"
_STOPPING = "stopping"

_log = logging.getLogger(__name__)


class Readiness:
    """Each service's state, that of the server as a whole ("": all of them are ready), and `liveness`.

    Belongs to one event loop. A server that stops is not ready, for good; it lives until it ends.

    Args:
        services: their full names.
        on_change: told whether the server as a whole is ready, each time that anything has changed.
    """

    def __init__(self, services: Iterable[str], on_change: Callable[[bool], None] = lambda ready: None) -> None:
        self._on_change = on_change
        self._reasons = dict.fromkeys(services, _STARTING)  # not ready, and why
        self._known = set(self._reasons)
        self._wedged: dict[str, str] = {}
        self._stopping = False
        self._changed = asyncio.Event()  # of the state as it is; the next one has another

    def set_ready(self, service: str, ready: bool, why: str = "") -> None:
        """A service is ready, or not and why."""
        if self._stopping:
            return
        self._known.add(service)
        if ready:
            self._reasons.pop(service, None)
        else:
            self._reasons[service] = why or "not ready"
        _log.info("%s is %s", service, "ready" if ready else f"not ready: {self._reasons[service]}")
        self._tell()

    def set_wedged(self, worker: str, wedged: bool) -> None:
        """A worker gets nowhere, or does again. Meanwhile nothing is ready."""
        if wedged:
            self._wedged[worker] = f"{worker} gets nowhere"
        else:
            self._wedged.pop(worker, None)
        self._tell()

    def stop(self) -> None:
        """Nothing is ready any more, for good; those who watch are told."""
        self._stopping = True
        self._reasons = dict.fromkeys(self._known, _STOPPING)
        self._tell()

    def reason(self, service: str) -> str:
        """Why a service is not ready ("" for the whole server); empty if it is."""
        wedged = "; ".join(self._wedged.values())
        if service == LIVENESS:
            return wedged
        if service:
            return self._reasons.get(service, "") or wedged
        return "; ".join(f"{name}: {why}" for name, why in sorted(self._reasons.items())) or wedged

    def status(self, service: str) -> int | None:
        """What the health service answers; None for a service that is not here."""
        if service not in self._known and service not in ("", LIVENESS):
            return None
        reason = self.reason(service)
        return int(health_pb2.HealthCheckResponse.NOT_SERVING if reason else health_pb2.HealthCheckResponse.SERVING)

    @property
    def change(self) -> asyncio.Event:
        """Set once the state is no longer what it is now."""
        return self._changed

    def _tell(self) -> None:
        self._on_change(not self.reason(""))
        self._changed.set()
        self._changed = asyncio.Event()
