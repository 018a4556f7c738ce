"""What the figures of these studies are put together of. Colours: Okabe and Ito's, which colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

GREEN, BLUE, VERMILION, PURPLE, GREY = "#009E73", "#0072B2", "#D55E00", "#CC79A7", "0.45"
HEAT = "magma"
SMALL = 8  # points
# Inches.
_MAP, _LARGEST_MAP, _MARGIN = 1.12, 1.8, 0.9
_LEAST_WIDTH, _WIDE, _LEAST_ROW, _TITLES, _CURVES = 7.5, 9.0, 0.95, 0.45, 3.0
_ROW_NAME = 18  # characters
_TALLEST = 4  # maps taller than this, as a multiple of their width, are drawn smaller


def heat_map(panel: Any, values: np.ndarray) -> Any:
    """A map of attention [rows, columns], from 0 to its own largest value; by the square root, so that faint ones show.

    What is NaN is left white.
    """
    from matplotlib.colors import PowerNorm

    scale = PowerNorm(0.5, vmin=0, vmax=max(float(np.nanmax(values)), 1e-12))
    drawn = panel.imshow(values, cmap=HEAT, norm=scale, interpolation="nearest")
    bare(panel)
    return drawn


def bare(panel: Any) -> None:
    """No ticks, a thin frame."""
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_linewidth(0.4)


def map_grid(figure: Any, heights: Sequence[float], columns: int) -> tuple[Any, Any, Any]:
    """Lays out rows of maps above curves.

    Args:
        heights: of each row, as a multiple of the width of a map.
        columns: maps of a row.

    Returns:
        The panels, [rows, columns], the part of the figure that they are in, and that for curves below.
    """
    width = max(_LEAST_WIDTH, _MAP * columns + _MARGIN)
    side = min(_LARGEST_MAP, (width - _MARGIN) / columns)
    rows = [max(_LEAST_ROW, side * min(height, _TALLEST)) for height in heights]
    figure.set_size_inches(width, sum(rows) + _TITLES + _CURVES)
    figure.set_layout_engine("constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[sum(rows) + _TITLES, _CURVES])
    return above.subplots(len(rows), columns, squeeze=False, height_ratios=rows), above, below


def named_row(panel: Any, name: str) -> None:
    """The name of a row of panels, left of the first; long lines keep their ends."""
    panel.set_ylabel("\n".join(shortened(line, _ROW_NAME) for line in name.split("\n")), fontsize=SMALL - 1)


def shortened(text: str, most: int) -> str:
    """Its end, which tells files of one folder apart."""
    return text if len(text) <= most else "…" + text[1 - most :]


def heat_scale(figure: Any, drawn: Any, panels: Any) -> None:
    """One scale for maps that have each their own largest value."""
    bar = figure.colorbar(drawn, ax=panels, fraction=0.012, pad=0.01, aspect=40)
    most = drawn.get_clim()[1]
    bar.set_ticks([0, most / 16, most / 4, most], labels=["0", "1/16", "1/4", "1"])
    bar.set_label("attention, of a map's largest", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL - 1)
    bar.outline.set_linewidth(0.4)


def layer_axis(panel: Any, layers: int, scan: Sequence[tuple[int, str]]) -> None:
    """Layers from left to right; where the scans look is marked above the panel."""
    panel.set_xlabel("layer of the vision transformer", fontsize=SMALL + 1)
    step = max(1, layers // 12)
    panel.set_xticks(range(0, layers, step))
    panel.set_xlim(-0.4, layers - 0.6)
    panel.tick_params(labelsize=SMALL)
    panel.grid(alpha=0.25, linewidth=0.6)
    for layer, name in scan:
        panel.axvline(layer, color="0.55", linewidth=1, linestyle=(0, (1, 1.5)), zorder=0)
        panel.annotate(
            name, (layer, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=SMALL - 1, color="0.35",
        )  # fmt: skip


def legend(panel: Any) -> None:
    """Below the panel, not over its curves."""
    wide = panel.figure.get_figure(root=True).get_figwidth() > _WIDE
    panel.legend(fontsize=SMALL, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, ncols=2 if wide else 1)
