"""Score against average visual tokens, of a report of `embedded_model.evaluate`. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

VSCAN = "VScan"
ALL_TOKENS = "all tokens"
_INCH = (8.5, 5.2)
_TICKS = (16, 24, 32, 48, 72, 96, 144)


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One curve a method, with 95 % intervals; PNG or whatever the suffix of `path` says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCH, layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for number, method in enumerate(methods):
        mine = sorted((row for row in rows if row["method"] == method), key=lambda row: row["average_tokens"])
        _curve(axes, mine, method, number)
    whole = next(row for row in rows if row["name"] == ALL_TOKENS)
    axes.axhline(100 * whole["score"]["value"], color="0.7", linewidth=1, zorder=0)
    axes.set_xlabel("visual tokens, average over the layers")
    axes.set_ylabel("exact match, %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)


def _curve(axes: Any, rows: Sequence[Mapping[str, Any]], method: str, number: int) -> None:
    from matplotlib import colormaps

    bold = method == VSCAN
    scores = [row["score"] for row in rows]
    below = [100 * (score["value"] - score["low"]) for score in scores]
    above = [100 * (score["high"] - score["value"]) for score in scores]
    axes.errorbar(
        [row["average_tokens"] for row in rows],
        [100 * score["value"] for score in scores],
        yerr=[below, above],
        label=method,
        color="black" if bold else colormaps["tab20"](number % 20),
        linewidth=2.4 if bold else 1.1,
        marker="osD^vX*P"[number % 8],
        markersize=6 if bold else 4,
        elinewidth=0.8,
        zorder=5 if bold else 2,
    )
