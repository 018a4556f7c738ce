"""The engine's figures as metrics, looked up now and then: its thread has better things to do."""

from __future__ import annotations

import asyncio

from decoder_service.engine_loop import EngineLoop
from vscan.telemetry.metrics import DecoderMetrics


class EngineReport:
    """Reports until it is cancelled."""

    def __init__(self, engine: EngineLoop, metrics: DecoderMetrics, *, every_seconds: float = 0.5) -> None:
        self._engine = engine
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._waiting = 0
        self._running = 0

    async def run(self) -> None:
        """Never returns."""
        while True:
            self.report()
            await asyncio.sleep(self._every_seconds)

    def report(self) -> None:
        """Looks once."""
        figures = self._engine.figures
        self._metrics.waiting(figures.waiting - self._waiting)
        self._metrics.running(figures.running - self._running)
        self._waiting, self._running = figures.waiting, figures.running
        for usage in figures.segments:
            self._metrics.kv(usage.segment.index, rows=usage.rows, used_bytes=usage.reserved_bytes)
