"""Pictures of a report. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from studies.load.figures import PERCENTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by the colour-blind too: https://jfly.uni-koeln.de/color/
_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7")
_PEER_COLOUR = "#D55E00"
_MARKERS = ("o", "s", "^", "D")
_SHIFTS = (-0.24, -0.08, 0.08, 0.24)  # so that no mark hides another
_INK = "#333333"
_TICK_CHARACTERS = 12


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Goodput above, times to the first token below; a column for each case. One configuration alone: its distributions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = report["cases"]
    if len(cases) == 1 and len(cases[0]["configurations"]) == 1:
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        _percentile_curves(figure.subplots(), cases[0]["configurations"][0], report["targets"])
    else:
        most = max(len(case["configurations"]) for case in cases)
        figure = Figure(figsize=(max(6.0, (1.0 + 0.9 * most) * len(cases) + 0.8), 6.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(2, len(cases), squeeze=False)
        for axes in grid[1][1:]:
            axes.sharey(grid[1][0])
        for column, case in enumerate(cases):
            _goodput(grid[0][column], case, first=column == 0)
            _first_tokens(grid[1][column], case, report["targets"], first=column == 0)
        _percentile_legend(grid[1][-1])
        targets = report["targets"]
        figure.suptitle(
            f"good: first token within {targets['ttft_ms']:g} ms, later ones within {targets['tpot_ms']:g} ms each on average",
            fontsize=10,
        )
    figure.savefig(path, dpi=150)


def _goodput(axes: Axes, case: Mapping[str, Any], *, first: bool) -> None:
    ones = case["configurations"]
    for place, (one, colour) in enumerate(zip(ones, _colours(ones), strict=True)):
        axes.bar(place, one["goodput_per_s"], 0.66, color=colour, hatch="//" if one["peer"] else None, edgecolor="white")
        values = [each["goodput_per_s"] for each in one["rounds"]]
        axes.plot([place] * len(values), values, ".", color=_INK, markersize=4, zorder=3)
        top = max([one["goodput_per_s"], *values])
        axes.annotate(
            _bar_label(case, one), (place, top), xytext=(0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=8
        )
    _name_ticks(axes, ones)
    axes.margins(y=0.3)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{case['label']}{_whole_gain(case)}", fontsize=10)
    if first:
        axes.set_ylabel("good requests a second\n(dots: rounds; ×: of the bar before)")


def _first_tokens(axes: Axes, case: Mapping[str, Any], targets: Mapping[str, float], *, first: bool) -> None:
    ones = case["configurations"]
    for place, (one, colour) in enumerate(zip(ones, _colours(ones), strict=True)):
        if one["ttft_ms"] is None:
            continue
        shown = [
            (marker, place + shift, time)
            for marker, shift, percent in zip(_MARKERS, _SHIFTS, PERCENTILES, strict=True)
            if (time := one["ttft_ms"][f"p{percent}"]) is not None
        ]
        axes.plot([at for _, at, _ in shown], [time for _, _, time in shown], color=colour, linewidth=2, zorder=1)
        for marker, at, time in shown:
            axes.plot(at, time, marker, color=colour, markeredgecolor=_INK, markersize=7)
    axes.axhline(targets["ttft_ms"], color=_INK, linestyle="--", linewidth=1)
    _name_ticks(axes, ones)
    axes.set_xlim(-0.6, len(ones) - 0.4)
    _milliseconds(axes)
    axes.grid(axis="y", which="both", alpha=0.25)
    if first:
        axes.set_ylabel("time to first token, ms")


def _percentile_legend(axes: Axes) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker=marker, linestyle="", color="white", markeredgecolor=_INK, label=f"p{percent}")
        for marker, percent in zip(_MARKERS, PERCENTILES, strict=True)
    ]
    marks.append(Line2D([], [], color=_INK, linestyle="--", linewidth=1, label="target"))
    axes.legend(handles=marks, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _percentile_curves(axes: Axes, one: Mapping[str, Any], targets: Mapping[str, float]) -> None:
    shown = (("ttft_ms", "time to first token"), ("tpot_ms", "time per token after it"), ("total_ms", "whole answer"))
    places = range(len(PERCENTILES))
    for (name, label), colour, marker, dash in zip(
        shown, ("#0072B2", "#E69F00", "#009E73"), "os^", ("-", "--", ":"), strict=True
    ):
        if one[name]:
            times = [one[name][f"p{each}"] for each in PERCENTILES]
            known = [(place, time) for place, time in zip(places, times, strict=True) if time is not None]
            axes.plot([at for at, _ in known], [time for _, time in known], dash, marker=marker, color=colour, label=label)
    axes.axhline(targets["ttft_ms"], color="#0072B2", linewidth=1, alpha=0.6)
    axes.axhline(targets["tpot_ms"], color="#E69F00", linewidth=1, alpha=0.6)
    axes.set_xticks(list(places), [f"p{each}" for each in PERCENTILES])
    axes.set_xlabel("percentile of the answered requests; lines without marks are the targets")
    axes.set_ylabel("ms")
    _milliseconds(axes)
    axes.grid(axis="y", which="both", alpha=0.25)
    axes.set_title(
        f"{one['label']}: {one['goodput_per_s']:.2f} good of {one['requests_per_s']:.2f} requests a second", fontsize=10
    )
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _milliseconds(axes: Axes) -> None:
    """A logarithmic scale with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _colours(ones: Sequence[Mapping[str, Any]]) -> list[str]:
    steps = iter(_COLOURS * len(ones))
    return [_PEER_COLOUR if one["peer"] else next(steps) for one in ones]


def _bar_label(case: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Its goodput, and how many times that of the step before."""
    value = f"{one['goodput_per_s']:.2f}"
    gain = next((each for each in case["gains"] if each["to"] == one["name"]), None)
    if one["peer"] or gain is None or _is_peer(case, gain["from"]):
        return value
    if (found := gain["goodput"]) is None:
        return value
    spread = "" if found["low"] is None else f"\n({found['low']:.2f}–{found['high']:.2f})"
    return f"{value}\n×{found['ratio']:.2f}{spread}"


def _is_peer(case: Mapping[str, Any], name: str) -> bool:
    return any(one["name"] == name and one["peer"] for one in case["configurations"])


def _whole_gain(case: Mapping[str, Any]) -> str:
    """Of the last step over the first, and over each peer."""
    steps = [one for one in case["configurations"] if not one["peer"]]
    labels = {one["name"]: one["label"] for one in case["configurations"]}
    told = []
    for gain in case["gains"]:
        from_the_first = gain["from"] == steps[0]["name"] or _is_peer(case, gain["from"])
        if len(steps) > 1 and from_the_first and gain["to"] == steps[-1]["name"]:
            told += _told_gain(gain, labels[gain["from"]])
    return f"\nin all {', '.join(told)}" if told else ""


def _told_gain(gain: Mapping[str, Any], over: str) -> list[str]:
    """Where nothing was good before, that of all answers."""
    if gain["goodput"] is not None:
        return [f"×{gain['goodput']['ratio']:.1f} over {over}"]
    return [] if gain["requests"] is None else [f"×{gain['requests']['ratio']:.1f} answers over {over}"]


def _name_ticks(axes: Axes, ones: Sequence[Mapping[str, Any]]) -> None:
    axes.set_xticks(range(len(ones)), [fill(one["label"], _TICK_CHARACTERS) for one in ones], fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
