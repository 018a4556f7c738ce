"""Lines that are told apart by colour, marker and dash: the colours of Okabe and Ito, which colour-blind people tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_MARKERS = "os^DvPX*"
_DASHES = ("-", "--", "-.", ":")
# More lines than this are not told apart any more: that of all questions, and seven families.
MOST = len(_COLOURS)


def stroke(number: int, points: int) -> dict[str, Any]:
    """Keywords for `Axes.plot` of the n-th line of so many points; line 0 is the one that matters most."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "linewidth": 2.2 if number == 0 else 1.3,
        "markersize": 5,
        "markevery": max(1, round(points / 12)),
        "markerfacecolor": _COLOURS[number % len(_COLOURS)] if number % 2 == 0 else "white",
    }


def family_strokes(families: Sequence[str], points: int) -> dict[str, dict[str, Any]]:
    """The line of each family, the same in every study of the same questions: the first one is that of all of them.

    `families` are those of `studies.language.groups.with_all`, of which the first `MOST` are drawn.
    """
    return {family: stroke(number, points) for number, family in enumerate(families[:MOST])}


def left_out(shown: int, families: int) -> str:
    """What to say where some of the families are not drawn; they are in the table."""
    return f" (first {shown} of {families})" if shown < families else ""


def layer_ticks(axes: Any, layers: Sequence[int]) -> None:
    """About ten whole numbers on the x-axis."""
    step = max(1, round(len(layers) / 12))
    axes.set_xticks([layer for layer in layers if layer % step == 0])
    axes.grid(alpha=0.25)


def mark_pruning(axes: Any, places: Sequence[float]) -> None:
    """Where the decoder prunes, as it is set."""
    for number, place in enumerate(places):
        label = "where the decoder prunes" if not number else None
        axes.axvline(place, color="0.6", linewidth=1.2, linestyle=(0, (5, 2)), zorder=0, label=label)


def legend_below(figure: Any, axes: Any, columns: int) -> None:
    """One legend for panels that show the same lines, below them."""
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False, handlelength=3
    )
