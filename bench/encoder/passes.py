"""Device passes in this process: reduced and unreduced here, and transformers' own features."""

from __future__ import annotations

import statistics

from bench.encoder.setup import Setup
from bench.harness import Check, Report
from bench.timing import alternating, median_ratio

PLAIN, UNREDUCED, REDUCED = "transformers", "unreduced", "reduced"


def measure(setup: Setup, report: Report) -> None:
    """One batch size after the other."""
    speeds: dict[str, dict[int, float]] = {side: {} for side in (PLAIN, UNREDUCED, REDUCED)}
    for count in setup.batches:
        times = _times(setup, report, count)
        report.checks.append(Check(f"reduced_vs_plain_b{count}", median_ratio(times[REDUCED], times[PLAIN]), "<=", 1.0))
        for side, seconds in times.items():
            speeds[side][count] = round(count / statistics.median(seconds), 3)
    report.summary["images a second, in process"] = speeds


def _times(setup: Setup, report: Report, count: int) -> dict[str, list[float]]:
    """All sides alternate, over the same images."""
    run, images = setup.device_pass, setup.images(count)
    unreduced, reduced = (setup.jobs(images, plan) for plan in (setup.unreduced, setup.reduced))
    sides = {
        PLAIN: lambda: setup.timed(lambda: setup.plain_features(images)),
        UNREDUCED: lambda: setup.timed(lambda: run(unreduced)),
        REDUCED: lambda: setup.timed(lambda: run(reduced)),
    }
    return alternating(setup.rounds, sides, report, f"pass over {count}")
