"""Agreement, divergence and stability against the number of layers run: by the logit lens, and without visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from studies.language.converged import Convergence, FamilyConvergence
from studies.language.strokes import MOST, family_strokes, layer_ticks, left_out, legend_below, mark_pruning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {
    "lens": "Logit lens: if the model ended after n layers",
    "blind": "Blind: if no visual token went beyond n layers",
}
# Below this many nats two predictions are one; the axis is linear there.
_SAME_NATS = 1e-3


def draw(figure: Figure, *, families: Sequence[FamilyConvergence], pruned: Sequence[int]) -> None:
    """A row for each way to read; columns for agreement, divergence and stability; a line a family."""
    shown = families[:MOST]
    figure.set_size_inches(11, 6.6)
    figure.set_layout_engine("constrained")
    rows: Any = figure.subfigures(2, 1)
    strokes = family_strokes([family.family for family in shown], len(shown[0].lens.agreement))
    most = max(float(family.readings()[way].kl_nats[:, 1].max()) for family in shown for way in _TITLES)
    for row, (way, title) in zip(rows, _TITLES.items(), strict=True):
        row.suptitle(title + left_out(len(shown) - 1, len(families) - 1), fontsize=11)
        panels = row.subplots(1, 3)
        for family in shown:
            _lines(panels, family.readings()[way], family.family, strokes[family.family])
        _dress(panels, len(shown[0].lens.agreement), most)
        for panel in panels:
            mark_pruning(panel, pruned)
    legend_below(figure, rows[0].axes[0], 6)


def _lines(panels: Sequence[Any], found: Convergence, label: str, style: dict[str, Any]) -> None:
    layers = range(len(found.agreement))
    panels[0].plot(layers, 100 * found.agreement, label=label, **style)
    panels[1].plot(layers, found.kl_nats[:, 1], **style)
    panels[2].plot(layers, 100 * found.stable, **(style | {"drawstyle": "steps-post"}))


def _dress(panels: Sequence[Any], layers: int, most: float) -> None:
    labels = ("same token as in the end, %", "KL(final ‖ after n layers), nats", "stable from here on, %")
    for panel, label in zip(panels, labels, strict=True):
        panel.set_ylabel(label, fontsize=9)
        panel.set_xlabel("layers run (n)", fontsize=9)
        panel.tick_params(labelsize=8)
        layer_ticks(panel, range(layers))
    for panel in (panels[0], panels[2]):
        panel.set_ylim(-3, 103)
    panels[1].set_yscale("symlog", linthresh=_SAME_NATS)
    panels[1].set_ylim(0, 2 * max(most, _SAME_NATS))
