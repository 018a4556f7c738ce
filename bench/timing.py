"""How benchmarks measure: the sides of a comparison in turn, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.harness import Report


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(
    rounds: int, sides: Mapping[str, Callable[[], float]], report: Report, kind: str, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side, round after round; all sides in turn, in every round. The report gets them, and their medians."""
    if warm:
        for side in sides.values():
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side())
    report.summary[f"{kind}, ms"] = {name: round(statistics.median(seconds) * 1e3, 2) for name, seconds in times.items()}
    report.raw += [{"kind": kind, "side": name, "ms": [second * 1e3 for second in seconds]} for name, seconds in times.items()]
    return times


def alternate(
    rounds: int, sides: Mapping[str, Callable[[], float]], report: Report, kind: str, *, warm: bool = True
) -> dict[str, float]:
    """Medians of seconds; see `alternating`."""
    times = alternating(rounds, sides, report, kind, warm=warm)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def median_ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of each round: what slows a machine down for a while slows both sides."""
    return statistics.median(one / other for one, other in zip(some, others, strict=True))
