"""Records to figures: percentiles, goodput, failures, places, tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from studies.load.record import Record

PERCENTILES = (50, 90, 95, 99)
# The 97.5 % quantile of Student's t with 1, 2, … degrees of freedom. Beyond 30 it is a little less than the last.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Targets:
    """What a request must meet to count as good.

    Attributes:
        ttft_ms: longest time to the first token.
        tpot_ms: longest mean time for each token after it.
        late_ms: how late the generator may be in 99 of 100 requests before the run is marked.
    """

    ttft_ms: float = 500.0
    tpot_ms: float = 50.0
    late_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio, and its 95 % interval over rounds; `None` where one round says nothing of the spread."""

    ratio: float
    low: float | None
    high: float | None


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Linear between the closest ranks, as numpy's default; `None` of nothing.

    1 2 3 4, 50 % → place 1.5 → 2.5
    """
    ordered = sorted(values)
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles(values: Iterable[float | None]) -> dict[str, float | None] | None:
    """p50, p90, p95, p99, the mean, the largest and how many there are; `None` of nothing.

    A percentile is `None` where less than one value lies beyond it: p99 of fewer than 100 is the largest again.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = {f"p{percent}": supported_percentile(known, percent) for percent in PERCENTILES}
    return {**found, "mean": fmean(known), "max": max(known), "count": len(known)}


def supported_percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile that one value at least lies beyond on average: p95 of 20 values or more."""
    return percentile(values, percent) if len(values) * (100 - percent) >= 100 else None


def seconds_of(records: Sequence[Record]) -> float:
    """From the run's beginning to the last end."""
    return max((record.end_s or 0.0 for record in records), default=0.0)


def goodput(records: Sequence[Record], targets: Targets) -> float:
    """Requests a second that met both targets."""
    seconds = seconds_of(records)
    return sum(record.meets(targets.ttft_ms, targets.tpot_ms) for record in records) / seconds if seconds > 0 else 0.0


def summary(runs: Sequence[Sequence[Record]], targets: Targets) -> dict[str, Any]:
    """All figures of some runs under one load together, as JSON values; seconds are those of all runs."""
    seconds = sum(map(seconds_of, runs))
    records = [record for run in runs for record in run]
    good = sum(record.meets(targets.ttft_ms, targets.tpot_ms) for record in records)
    answered = [record for record in records if record.ok]
    late = [record.late_ms for record in records if record.late_ms is not None]
    late_p99 = percentile(late, 99)
    return {
        "requests": len(records),
        "answered": len(answered),
        "failures": dict(sorted(Counter(record.code for record in records if not record.ok).items())),
        "failure_examples": {record.code: record.message for record in reversed(records) if not record.ok},
        "miscounted": sum(record.miscounted for record in answered),
        "short_answers": sum(record.short for record in answered),
        "seconds": seconds,
        "requests_per_s": len(answered) / seconds if seconds > 0 else 0.0,
        "goodput_per_s": good / seconds if seconds > 0 else 0.0,
        "good_share": good / len(records) if records else 0.0,
        "ttft_ms": percentiles(record.ttft_ms for record in answered),
        "tpot_ms": percentiles(record.tpot_ms for record in answered),
        "gap_ms": percentiles(gap for record in answered for gap in record.gaps_ms),
        "total_ms": percentiles(record.total_ms for record in answered),
        "generator_late_ms": percentiles(late),
        "generator_late_p99_ms": late_p99,
        "generator_fell_behind": late_p99 is not None and late_p99 > targets.late_ms,
        "places": dict(sorted(Counter(place for record in answered for place in record.places).items())),
        "tokens": _tokens(answered, seconds),
    }


def _tokens(answered: Sequence[Record], seconds: float) -> dict[str, float | None]:
    completion = _sum(record.answer_tokens for record in answered)
    return {
        "prompt": _sum(record.prompt_tokens for record in answered),
        "completion": completion,
        "completion_per_s": completion / seconds if completion is not None and seconds > 0 else None,
        "visual_before_mean": _mean(record.visual_before for record in answered),
        "visual_after_mean": _mean(record.visual_after for record in answered),
        "visual_average_mean": _mean(record.visual_average for record in answered),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def ratio_over_rounds(after: Sequence[float], before: Sequence[float]) -> Interval | None:
    """How many times `after` is `before`: the geometric mean of the rounds' own ratios, and Student's interval of their
    logarithms. `None` where a round has nothing to divide by, or came to nothing.

    What slows a machine down for a while slows both sides of a round.
    """
    if not after or any(value <= 0 for value in (*after, *before)):
        return None
    logs = [math.log(one / other) for one, other in zip(after, before, strict=True)]
    middle, freedom = fmean(logs), len(logs) - 1
    if freedom == 0:
        return Interval(math.exp(middle), None, None)
    reach = _T[min(freedom, len(_T)) - 1] * stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))
