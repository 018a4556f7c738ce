"""Notices workers that are wedged: at one piece of their work for longer than any takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vscan.heartbeat import Heartbeat
from vscan.rpc.readiness import Readiness

_LOOK_EVERY_SECONDS = 1.0
_LOOKS_WITHIN_STALL = 4

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    heart: Heartbeat
    since: float | None = None
    stuck_seconds: float = 0.0
    wedged: bool = False


class Liveness:
    """Looks at workers' heartbeats from the event loop, and tells the health service. Belongs to that loop.

    Time counts by the loop's own turns: a process that was stopped for a while, and went on, is not taken for wedged.
    """

    def __init__(self, readiness: Readiness, *, stall_seconds: float) -> None:
        self._readiness = readiness
        self._stall_seconds = stall_seconds
        self._look_every = min(_LOOK_EVERY_SECONDS, stall_seconds / _LOOKS_WITHIN_STALL)
        self._watched: list[_Watched] = []

    def watch(self, hearts: Sequence[Heartbeat]) -> None:
        """From now on these are looked at too."""
        self._watched += [_Watched(heart) for heart in hearts]

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(self._look_every)
            now = time.monotonic()
            passed, looked = min(now - looked, 2 * self._look_every), now
            for watched in self._watched:
                self._look(watched, passed)

    def _look(self, watched: _Watched, passed: float) -> None:
        since = watched.heart.since
        stuck = since is not None and since == watched.since
        watched.since = since
        watched.stuck_seconds = watched.stuck_seconds + passed if stuck else 0.0
        wedged = watched.stuck_seconds > self._stall_seconds
        if wedged != watched.wedged:
            watched.wedged = wedged
            self._tell(watched.heart, wedged)

    def _tell(self, heart: Heartbeat, wedged: bool) -> None:
        if wedged:
            _log.error("%s has finished nothing for %g s\n%s", heart.name, self._stall_seconds, heart.stacks())
        else:
            _log.warning("%s goes on", heart.name)
        self._readiness.set_wedged(heart.name, wedged)
