"""Maps of the kept places over the picture, and their centre of mass against the pruning layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from studies.language.bias import LayerBias, PositionBias
from studies.language.retained import RATERS
from studies.language.strokes import layer_ticks, mark_pruning, stroke

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_INCH = 11
_LEAST_MAP_INCH = 1.3
_CURVE_INCH = 2.7
_CURVES: tuple[tuple[str, Callable[[LayerBias], float], Callable[[LayerBias], float] | None], ...] = (
    ("centre of mass, row\n(0 top, 1 bottom)", lambda bias: bias.row.mean, lambda bias: bias.row.half_width),
    ("centre of mass, column\n(0 left, 1 right)", lambda bias: bias.column.mean, lambda bias: bias.column.half_width),
    ("mean raster position\n(0 first, 1 last)", lambda bias: bias.raster.mean, lambda bias: bias.raster.half_width),
    ("unevenness against candidates\n(share that stands elsewhere)", lambda bias: bias.unevenness, None),
)


def draw(figure: Figure, *, bias: PositionBias, layers: Sequence[int], pruned: Sequence[int]) -> None:
    """A row of maps for each rater, a column for each of `layers`; below them the curves over all layers."""
    reduced = bool((bias.candidates.map < 1).any())
    columns = len(layers) + reduced
    across = max(_LEAST_INCH, _LEAST_MAP_INCH * columns)
    maps_inch = len(RATERS) * (across / (columns + 0.8) + 0.1) + 0.2
    figure.set_size_inches(across, maps_inch + _CURVE_INCH)
    figure.set_layout_engine("constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[maps_inch, _CURVE_INCH])
    above, below = halves
    _maps(above, bias, layers, reduced)
    for axes, (label, value, width) in zip(below.subplots(1, len(_CURVES)), _CURVES, strict=True):
        _curve(axes, bias, label, value, width)
        mark_pruning(axes, pruned)
    below.legend(*below.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _maps(figure: Any, bias: PositionBias, layers: Sequence[int], reduced: bool) -> None:
    panels = figure.subplots(len(RATERS), len(layers) + reduced, squeeze=False)
    shown = [[each for each in bias.of(rater) if each.layer in layers] for rater in RATERS]
    drawn = [*(each for of_rater in shown for each in of_rater), *([bias.candidates] if reduced else [])]
    most = max(float(each.map.max()) for each in drawn)
    for row, (rater, of_rater) in enumerate(zip(RATERS, shown, strict=True)):
        if reduced:
            _map(panels[row][0], bias.candidates, most, "from the encoder" if row == 0 else "")
        for panel, each in zip(panels[row][reduced:], of_rater, strict=True):
            image = _map(panel, each, most, f"before layer {each.layer}" if row == 0 else "")
        panels[row][0].set_ylabel(rater.value.replace("_", " "), fontsize=10)
    bar = figure.colorbar(image, ax=panels, shrink=0.85, pad=0.01)
    bar.set_label("questions that keep\nthe token there, %", fontsize=8)
    bar.set_ticks([share * most for share in (0, 0.5, 1)], labels=[f"{100 * share * most:.0f}" for share in (0, 0.5, 1)])


def _map(panel: Any, bias: LayerBias, most: float, title: str) -> Any:
    """The picture's middle is where the thin lines cross, the centre of mass is the ringed cross."""
    image = panel.imshow(bias.map, cmap="viridis", vmin=0, vmax=most, extent=(0, 1, 1, 0), aspect="auto")
    panel.axhline(0.5, color="white", linewidth=0.6, linestyle=":")
    panel.axvline(0.5, color="white", linewidth=0.6, linestyle=":")
    centre = (bias.column.mean, bias.row.mean)
    panel.plot(*centre, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=2.6)
    panel.plot(*centre, "o", markersize=9, markerfacecolor="none", markeredgecolor="#D55E00", markeredgewidth=1.4)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_box_aspect(1)
    panel.set_title(title, fontsize=9)
    return image


def _curve(
    axes: Any,
    bias: PositionBias,
    label: str,
    value: Callable[[LayerBias], float],
    width: Callable[[LayerBias], float] | None,
) -> None:
    """Both raters, with 95 % intervals where there are any, beside what no bias would give."""
    for number, rater in enumerate(RATERS):
        of_rater = bias.of(rater)
        style = stroke(number + 1, len(of_rater))
        layers, means = [each.layer for each in of_rater], [value(each) for each in of_rater]
        axes.plot(layers, means, label=rater.value.replace("_", " "), **style)
        if width is not None:
            widths = [width(each) for each in of_rater]
            low, high = ([mean + sign * half for mean, half in zip(means, widths, strict=True)] for sign in (-1, 1))
            axes.fill_between(layers, low, high, color=style["color"], alpha=0.15, linewidth=0)
    if width is None:
        axes.plot(layers, [each.chance for each in of_rater], color="0.35", linestyle=":", label="no bias")
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(value(bias.candidates), color="0.35", linestyle=":", label="no bias")
        axes.set_ylim(0, 1)
    axes.set_xlabel("pruning layer", fontsize=9)
    axes.set_title(label, fontsize=9)
    axes.tick_params(labelsize=8)
    layer_ticks(axes, layers)
