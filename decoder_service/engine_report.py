"""The engine's figures as metrics, looked up now and then: its thread has better things to do."""

from __future__ import annotations

import asyncio

from decoder_service.engine import EngineFigures
from decoder_service.engine_loop import EngineLoop
from vscan.telemetry.decoder_metrics import EngineMetrics

_STEPS_AT_ONCE = 16  # recording one takes tens of microseconds; other requests' tokens are not to wait for many


class EngineReport:
    """Reports until it is cancelled, and then once more."""

    def __init__(self, engine: EngineLoop, metrics: EngineMetrics, *, every_seconds: float = 0.5) -> None:
        self._engine = engine
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._last = EngineFigures(0, 0, ())

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                self._report()
                await self._report_steps()
                await asyncio.sleep(self._every_seconds)
        finally:
            self._report()
            await self._report_steps()

    def _report(self) -> None:
        figures, last = self._engine.figures, self._last
        self._metrics.waiting(figures.waiting - last.waiting)
        self._metrics.running(figures.running - last.running)
        self._metrics.reused(figures.reused_rows - last.reused_rows)
        self._metrics.preempted(figures.preemptions - last.preemptions)
        self._last = figures
        if (pages := figures.pages) is not None:
            self._metrics.kv_pages(held=pages.held, idle=pages.idle, free=pages.total - pages.held - pages.idle)
        for usage in figures.segments:
            held = {"rows": usage.rows, "blocks": usage.blocks, "used_bytes": usage.used_bytes, "idle_bytes": usage.idle_bytes}
            self._metrics.kv(usage.segment.index, **held)

    async def _report_steps(self) -> None:
        while steps := self._engine.take_steps(_STEPS_AT_ONCE):
            for step in steps:
                self._metrics.stepped(step.duration_ms, rows=step.rows, sequences=step.sequences)
                for queue_ms in step.queue_ms:
                    self._metrics.waited(queue_ms)
            await asyncio.sleep(0)
