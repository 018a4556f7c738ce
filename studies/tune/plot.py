"""The Pareto plot: accuracy against visual tokens.

The upper panel has the accuracies that a choice is about, the lower one, where it is needed, all that lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.tune.choice import Choice
from studies.tune.figures import Figures
from studies.tune.point import NO_REDUCTION

NAME = "tune.png"
_INCH = (9.0, 5.6)
_DOTS_PER_INCH = 150
_HEIGHTS = (3.0, 1.0)
# How far below the best the upper panel goes at most, in percentage points.
_UPPER_PANEL = 15.0
_MARGIN = 1.0
# Okabe and Ito's colours, which those who see few colours tell apart too; each pruning layer and control has its own marker.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "oD^vsP"
_CONTROL_MARKERS = "sXd<>ph"
_SIDE_BY_SIDE = 0.45  # over how much of a doubling of tokens points with about as many are spread
_ABOUT_AS_MANY = 1.15

Places = Mapping[int, float]  # where each point is drawn, by `id`


def write_plot(figures: Sequence[Figures], choice: Choice, path: Path, title: str) -> None:
    """Draws it; PNG, or as the suffix of `path` says. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCH, layout="constrained")
    draw(figure, figures, choice, title)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def draw(figure: Any, figures: Sequence[Figures], choice: Choice, title: str) -> None:
    """Candidates filled, by pruning layer; controls hollow; the front a line; the choice a ring."""
    places = _places(figures, choice)
    floor = _floor(figures)
    below = any(100 * each.accuracy.value < floor for each in figures)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=_HEIGHTS) if below else [figure.subplots()]
    for axes in panels:
        _draw_points(axes, figures, choice, places)
        axes.grid(alpha=0.25)
    highest = max(100 * each.accuracy.high for each in figures)
    panels[0].set_ylim(floor - _MARGIN, highest + _MARGIN)
    if below:
        lowest = min(100 * each.accuracy.low for each in figures)
        panels[1].set_ylim(max(0.0, lowest - 2 * _MARGIN), floor - _MARGIN)
    panels[0].set_title(title, fontsize=10)
    _label_tokens(panels[-1], figures)
    figure.supylabel("exact match, % of questions, with 95 % intervals", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)


def _draw_points(axes: Any, figures: Sequence[Figures], choice: Choice, places: Places) -> None:
    mine = [each for each in figures if not each.point.is_control and each.point.kind != NO_REDUCTION]
    for number, layers in enumerate(sorted({each.point.deployment.prune_layers for each in mine})):
        group = [each for each in mine if each.point.deployment.prune_layers == layers]
        style = {"color": _COLORS[number % 6], "marker": _MARKERS[number % 6], "markersize": 5}
        _bars(axes, group, places, f"VScan, pruned at layer {group[0].point.deployment.pruned_at}", **style)
    controls = [each for each in figures if each.point.is_control]
    for number, kind in enumerate(dict.fromkeys(_family(each) for each in controls)):
        group = [each for each in controls if _family(each) == kind]
        style = {"color": "0.45", "marker": _CONTROL_MARKERS[number % 7], "markersize": 5.5, "markerfacecolor": "none"}
        _bars(axes, group, places, f"control: {kind}", **style)
    whole = [each for each in figures if each.point.kind == NO_REDUCTION]
    _bars(axes, whole, places, NO_REDUCTION, color="black", marker="*", markersize=11)
    _front_and_choice(axes, choice, places)


def _family(each: Figures) -> str:
    """A control's name without its layer: "random at layer 4" is "random at k"."""
    name, at_layer, _ = each.point.kind.partition(" at layer ")
    return f"{name} at k" if at_layer else name


def _bars(axes: Any, group: Sequence[Figures], places: Places, label: str, **style: Any) -> None:
    values = [each.accuracy for each in group]
    low, high = [100 * (value.value - value.low) for value in values], [100 * (value.high - value.value) for value in values]
    axes.errorbar(
        [places[id(each)] for each in group],
        [100 * value.value for value in values],
        yerr=[low, high],
        linestyle="none",
        elinewidth=0.6,
        label=label,
        **style,
    )


def _front_and_choice(axes: Any, choice: Choice, places: Places) -> None:
    xs = [places[id(each)] for each in choice.front]
    ys = [100 * each.accuracy.value for each in choice.front]
    axes.plot(xs, ys, color="black", linewidth=1.2, drawstyle="steps-post", label="Pareto front", zorder=1)
    chosen = choice.chosen.figures
    ring = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.8}
    axes.plot([places[id(chosen)]], [100 * chosen.accuracy.value], linestyle="none", label="chosen", zorder=7, **ring)


def _places(figures: Sequence[Figures], choice: Choice) -> dict[int, float]:
    """Where each point is drawn: the front and the choice at their tokens, others to the right of theirs, side by side.

    So bars do not hide each other, and no point looks cheaper than it is.
    """
    exact = {id(each) for each in (*choice.front, choice.chosen.figures)}
    places = {id(each): each.tokens for each in figures if id(each) in exact}
    left = sorted((each for each in figures if id(each) not in exact), key=lambda each: each.tokens)
    while left:
        group = [each for each in left if each.tokens <= left[0].tokens * _ABOUT_AS_MANY]
        left = left[len(group) :]
        ordered = sorted(group, key=lambda each: (each.point.is_control, each.point.kind, each.point.deployment.prune_layers))
        start = group[-1].tokens
        for number, each in enumerate(ordered, 1):
            alone = len(group) == 1
            places[id(each)] = start if alone else start * 2 ** (_SIDE_BY_SIDE * number / len(group))
    return places


def _floor(figures: Sequence[Figures]) -> float:
    """The lowest accuracy of the upper panel, in per cent."""
    best = max(each.accuracy.value for each in figures)
    candidates = [each.accuracy.low for each in figures if not each.point.is_control]
    return max(100 * min(candidates), 100 * best - _UPPER_PANEL)


def _label_tokens(axes: Any, figures: Sequence[Figures]) -> None:
    axes.set_xlabel("visual tokens, average over the layers (off the front: drawn to the right of it, side by side)")
    axes.set_xscale("log", base=2)
    ticks: list[int] = []
    for tokens in sorted({round(each.tokens) for each in figures if not each.point.is_control}):
        if not ticks or tokens > 1.2 * ticks[-1]:
            ticks.append(tokens)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
