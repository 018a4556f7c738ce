"""The report as JSON: what ran where with which options, the figures of every configuration, and the gain of each step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from studies.load.comparison import Compared
from studies.load.figures import (
    Interval,
    Targets,
    goodput,
    percentile,
    ratio_over_rounds,
    seconds_of,
    summary,
    supported_percentile,
)
from studies.load.hardware import environment
from studies.load.record import Record
from studies.load.sides import Side
from vscan.errors import InvalidArgument

SCHEMA = "vscan.load/1"


def read_report(path: Path) -> dict[str, Any]:
    """A report that was written before. Raises InvalidArgument where it cannot be read or has another form."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(str(path), f"cannot be read: {error}") from error
    schema = told.get("schema") if isinstance(told, dict) else None
    if schema != SCHEMA:
        raise InvalidArgument(str(path), f"schema {schema!r}", limit=SCHEMA)
    return dict(told)


def report(
    compared: Sequence[Compared],
    sides: Sequence[Side],
    *,
    targets: Targets,
    options: Mapping[str, Any],
    raw: bool = False,
) -> dict[str, Any]:
    """All of it. `raw`: each request of each round, too."""
    return {
        "schema": SCHEMA,
        "made": datetime.now(UTC).date().isoformat(),
        "environment": environment(),
        "targets": asdict(targets),
        "options": dict(options),
        "broken_off": any(each.broken_off for each in compared),
        "cases": [_case(each, sides, targets, raw) for each in compared],
    }


def _case(compared: Compared, sides: Sequence[Side], targets: Targets, raw: bool) -> dict[str, Any]:
    case = compared.case
    rounds = {side.name: [_round_figures(run.records, targets) for run in compared.runs(side.name)] for side in sides}
    return {
        "name": case.name,
        "label": case.label,
        "workload": case.load.described(),
        "orders": [each.order for each in compared.rounds],
        "configurations": [_configuration(compared, side, rounds[side.name], targets, raw) for side in sides],
        "gains": gains([(side.name, side.peer) for side in sides], rounds),
    }


def _configuration(
    compared: Compared, side: Side, rounds: list[dict[str, float | None]], targets: Targets, raw: bool
) -> dict[str, Any]:
    runs = compared.runs(side.name)
    figures = summary([run.records for run in runs], targets)
    styles = sorted({record.ask.style for run in runs for record in run.records})
    made = {
        "name": side.name,
        "label": side.label,
        "peer": side.peer,
        **dict(side.told),
        **figures,
        "hit_rates": hit_rates(figures["places"]),
        "busy_s": _added(run.busy_s for run in runs),
        "others_busy_s": sum(each.others_busy_s[side.name] for each in compared.rounds),
        "counters": _added(run.counters for run in runs),
        "rounds": rounds,
        "spread": {name: _spread([each[name] for each in rounds]) for name in rounds[0]} if rounds else {},
    }
    if len(styles) > 1:
        made["by_style"] = [
            {"style": style, **summary([[each for each in run.records if each.ask.style == style] for run in runs], targets)}
            for style in styles
        ]
    if raw:
        made["records"] = [[record.to_json() for record in run.records] for run in runs]
    return made


def _round_figures(records: Sequence[Record], targets: Targets) -> dict[str, float | None]:
    seconds = seconds_of(records)
    first = [record.ttft_ms for record in records if record.ok and record.ttft_ms is not None]
    return {
        "goodput_per_s": goodput(records, targets),
        "requests_per_s": sum(record.ok for record in records) / seconds if seconds > 0 else 0.0,
        "ttft_p50_ms": percentile(first, 50),
        "ttft_p95_ms": supported_percentile(first, 95),
    }


def gains(
    names: Sequence[tuple[str, bool]], rounds: Mapping[str, Sequence[Mapping[str, float | None]]]
) -> list[dict[str, Any]]:
    """Of each step over the one before it, of the last over the first, and of the last over each peer.

    Times count as how many times shorter: 2 is half.
    """
    steps = [name for name, peer in names if not peer]
    pairs = list(pairwise(steps))
    if len(steps) > 2:
        pairs.append((steps[0], steps[-1]))
    pairs += [(name, step) for name, peer in names if peer for step in {steps[0]: 0, steps[-1]: 0}] if steps else []
    return [{"from": before, "to": after, **_gain(rounds[before], rounds[after])} for before, after in pairs]


def _gain(before: Sequence[Mapping[str, float | None]], after: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    def of(name: str, upside_down: bool) -> dict[str, Any] | None:
        old, new = ([each[name] or 0.0 for each in rounds] for rounds in (before, after))
        found = ratio_over_rounds(old, new) if upside_down else ratio_over_rounds(new, old)
        return _interval(found)

    return {
        "goodput": of("goodput_per_s", False),
        "requests": of("requests_per_s", False),
        "ttft_p50": of("ttft_p50_ms", True),
        "ttft_p95": of("ttft_p95_ms", True),
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def hit_rates(places: Mapping[str, int]) -> dict[str, float]:
    """Shares of the images of all answers, by where their tokens were found; empty where nobody told."""
    total = sum(places.values())
    return {place: count / total for place, count in places.items()} if total else {}


def _added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return dict(sorted(total.items()))


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"least": min(known), "most": max(known), "mean": sum(known) / len(known)} if known else None
