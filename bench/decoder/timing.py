"""How the parts measure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.harness import Report
from decoder_service.engine import Engine
from decoder_service.request import EngineRequest


def serve(engine: Engine, requests: Sequence[EngineRequest]) -> float:
    """Seconds until all are answered."""
    start = time.perf_counter()
    for request in requests:
        engine.add(request, accepted_s=start)
    while not engine.idle:
        engine.step()
    return time.perf_counter() - start


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(
    rounds: int, sides: dict[str, Callable[[], float]], report: Report, kind: str, *, warm: bool = True
) -> dict[str, float]:
    """Medians of seconds; all sides in turn, in every round."""
    if warm:
        for side in sides.values():
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side())
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    report.summary[f"{kind}, ms"] = {name: round(seconds * 1e3, 2) for name, seconds in medians.items()}
    report.raw += [{"kind": kind, "side": name, "ms": [second * 1e3 for second in seconds]} for name, seconds in times.items()]
    return medians
