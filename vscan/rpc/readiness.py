"""The standard health service, with the reason why a service is not ready."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2

NOT_READY_KEY = "vscan-not-ready"  # trailing metadata of a Check that answers NOT_SERVING
_STARTING = "starting"
_STOPPING = "stopping"

_log = logging.getLogger(__name__)


class Readiness(health.aio.HealthServicer):  # type: ignore[misc,name-defined]
    """`grpc.health.v1.Health` for each service, and for the server as a whole ("") when all of them are ready."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._reasons = dict.fromkeys(services, _STARTING)  # not ready, and why
        self._known = set(self._reasons)
        self._stopping = False

    async def begin(self) -> None:
        """Nothing is ready yet. To be called once, before the port opens."""
        for service in ("", *self._known):
            await self.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def set_ready(self, service: str, ready: bool, why: str = "") -> None:
        """A service is ready, or not and why."""
        if self._stopping:
            return
        self._known.add(service)
        if ready:
            self._reasons.pop(service, None)
        else:
            self._reasons[service] = why or "not ready"
        _log.info("%s is %s", service, "ready" if ready else f"not ready: {self._reasons[service]}")
        await self.set(service, _serving(ready))
        await self.set("", _serving(not self._reasons))

    async def stop(self) -> None:
        """Nothing is ready any more, for good; those who watch are told."""
        self._stopping = True
        self._reasons = dict.fromkeys(self._known, _STOPPING)
        await self.enter_graceful_shutdown()

    def reason(self, service: str) -> str:
        """Why a service is not ready ("" for the whole server); empty if it is."""
        if service:
            return self._reasons.get(service, "")
        return "; ".join(f"{name}: {why}" for name, why in sorted(self._reasons.items()))

    async def Check(self, request: Any, context: Any) -> Any:
        """Answers a probe."""
        if why := self.reason(request.service):
            context.set_trailing_metadata(((NOT_READY_KEY, _ascii(why)),))
        return await super().Check(request, context)


def _serving(ready: bool) -> Any:
    return health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING


def _ascii(text: str) -> str:
    """What metadata may hold: printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
