"""How many queries were answered within how long, by where tokens were found, of a `bench.cache` report. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KIND = "cached"  # of the report's raw records


def latencies_by_place(raw: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Milliseconds of the queries to encoders with caches, by place, in the order of the places' names."""
    found: dict[str, list[float]] = {}
    for record in raw:
        if record["kind"] == KIND:
            found.setdefault(record["place"], []).append(record["ms"])
    return dict(sorted(found.items()))


def plot(latencies_ms: Mapping[str, Sequence[float]], path: Path) -> None:
    """A curve for each place; PNG or whatever the suffix of `path` says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, latencies in latencies_ms.items():
        shares = [100 * number / len(latencies) for number in range(1, len(latencies) + 1)]
        axes.plot(sorted(latencies), shares, label=f"{place} ({len(latencies)})")
    axes.set_xscale("log")
    axes.set_xlabel("latency at the client, ms")
    axes.set_ylabel("answered within, % of this place")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
