"""The share of attention that goes to visual tokens, to the system text and to the question, by layer; and by family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studies.language.attended import FamilyShares
from studies.language.strokes import MOST, family_strokes, layer_ticks, left_out, mark_pruning, stroke

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTS = {
    "visual": "visual tokens",
    "question": "question (text behind them)",
    "system": "system text (before them)",
    "first": "the prompt's first row",
}
# Of the parts of a prompt: colours are the families'.
_GREYS = ("#000000", "#5C5C5C", "#8C8C8C", "#B5B5B5")


def draw(figure: Figure, *, families: Sequence[FamilyShares], pruned: Sequence[int]) -> None:
    """Means with their quartiles on the left; where there are families, their means on the right."""
    every, several = families[0], families[1:MOST]
    strokes = family_strokes([family.family for family in families], len(every.layers))
    figure.set_size_inches(10 if several else 5.5, 4.2)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 2 if several else 1, sharey=True, squeeze=False)[0]
    _parts(panels[0], every)
    if several:
        _families(panels[1], several, strokes, every.visual_rows)
        panels[1].set_title(
            f"to visual tokens, by family of questions{left_out(len(several), len(families) - 1)}: mean", fontsize=10
        )
    for panel in panels:
        panel.set_xlabel("layer")
        panel.set_ylim(0, 100)
        mark_pruning(panel, [layer - 0.5 for layer in pruned])
        layer_ticks(panel, [layer.layer for layer in every.layers])
        panel.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=3 if panel is panels[-1] and several else 2,
            fontsize=8,
            frameon=False,
        )
    panels[0].set_ylabel("attention of the last prompt token, %")


def _parts(axes: Any, every: FamilyShares) -> None:
    layers = [layer.layer for layer in every.layers]
    for number, (part, label) in enumerate(_PARTS.items()):
        spreads = [getattr(layer, part) for layer in every.layers]
        style = stroke(number, len(layers)) | {"color": _GREYS[number], "markerfacecolor": _GREYS[number]}
        axes.plot(layers, [100 * spread.mean for spread in spreads], label=label, **style)
        low, high = ([100 * getattr(spread, end) for spread in spreads] for end in ("lower_quartile", "upper_quartile"))
        axes.fill_between(layers, low, high, color=style["color"], alpha=0.15, linewidth=0)
    _even(axes, every.visual_rows)
    axes.set_title(f"all {every.questions} questions: mean and quartiles", fontsize=10)


def _families(axes: Any, families: Sequence[FamilyShares], strokes: Mapping[str, dict[str, Any]], even: float) -> None:
    for family in families:
        means = [100 * layer.visual.mean for layer in family.layers]
        axes.plot([layer.layer for layer in family.layers], means, label=family.family, **strokes[family.family])
    _even(axes, even)


def _even(axes: Any, share: float) -> None:
    axes.axhline(100 * share, color="0.35", linewidth=1, linestyle=(0, (1, 2)), label="visual rows' share of the prompt")
