"""Score against average visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedded_model.evaluate.report import Line
from embedded_model.evaluate.rows import ALL_TOKENS, VSCAN

_INCH = (8.5, 5.2)
_TICKS = (16, 24, 32, 48, 72, 96, 144)


def write_plot(lines: Sequence[Line], path: Path) -> None:
    """One curve a method, with 95 % intervals; PNG or whatever the suffix of `path` says. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCH, layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(line.method for line in lines))
    for number, method in enumerate(methods):
        mine = sorted((line for line in lines if line.method == method), key=lambda line: line.average_tokens)
        _curve(axes, mine, method, number)
    whole = next(line for line in lines if line.name == ALL_TOKENS)
    axes.axhline(100 * whole.score.value, color="0.7", linewidth=1, zorder=0)
    axes.set_xlabel("visual tokens, average over the layers")
    axes.set_ylabel("exact match, %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)


def _curve(axes: Any, lines: Sequence[Line], method: str, number: int) -> None:
    from matplotlib import colormaps

    bold = method == VSCAN
    scores = [100 * line.score.value for line in lines]
    below = [100 * (line.score.value - line.score.low) for line in lines]
    above = [100 * (line.score.high - line.score.value) for line in lines]
    axes.errorbar(
        [line.average_tokens for line in lines],
        scores,
        yerr=[below, above],
        label=method,
        color="black" if bold else colormaps["tab20"](number % 20),
        linewidth=2.4 if bold else 1.1,
        marker="osD^vX*P"[number % 8],
        markersize=6 if bold else 4,
        elinewidth=0.8,
        zorder=5 if bold else 2,
    )
