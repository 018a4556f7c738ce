"""Looks at the process itself: tasks, threads, descriptors, and whether its event loop keeps up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from opentelemetry.metrics import Meter

from vscan.telemetry.metrics import ProcessMetrics

_EVERY_SECONDS = 0.5
_PROC = Path("/proc/self")


@asynccontextmanager
async def watched_process(meter: Meter) -> AsyncIterator[None]:
    """Around what the event loop serves: measures until it is left."""
    watching = asyncio.create_task(_watch(ProcessMetrics(meter)), name="watch the process")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(metrics: ProcessMetrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        metrics.holds(tasks=len(asyncio.all_tasks()), threads=_threads(), descriptors=_entries("fd"))
        due_s = loop.time() + _EVERY_SECONDS
        await asyncio.sleep(_EVERY_SECONDS)
        metrics.lag(max(0.0, loop.time() - due_s) * 1000)


def _threads() -> int:
    return _entries("task") or threading.active_count()  # without /proc those of Python alone


def _entries(folder: str) -> int:
    """How many there are in a folder of /proc; 0 where there is no /proc, or no descriptor is left to look."""
    try:
        return sum(1 for _ in (_PROC / folder).iterdir())
    except OSError:
        return 0
