"""How far each layer looks: where chosen patches look, and the mean distance that attention spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from encoder_service.vision.base import ScanSettings
from studies.study import Result, Table, Task
from studies.vision import figures
from studies.vision.distances import Distances, measure
from studies.vision.patch_maps import PatchMaps, patch_maps
from studies.vision.tiles import drawn_layers, layer_title
from vscan.errors import InvalidArgument


def run(task: Task) -> Result:
    """The study."""
    vision = task.model.vision
    at = task.options.get("image", 0)
    if at >= len(task.inputs.pictures):
        raise InvalidArgument("--image", f"{at}", limit=f"0 to {len(task.inputs.pictures) - 1}")
    drawn = patch_maps(vision, task.inputs.pictures[at], task.options.get("tile", 0), task.options.get("patch"))
    layers = drawn_layers(task.options.get("layers"), len(drawn.maps), vision.model.scan)
    distances = measure(task)
    return Result(
        table=distances.table(),
        more={"maps": _cells(drawn)},
        draw=partial(_draw, drawn=drawn, distances=distances, layers=layers, scan=vision.model.scan),
        findings=_findings(distances, vision.model.scan),
    )


def _cells(drawn: PatchMaps) -> Table:
    rows = [
        (
            drawn.tile.source.name,
            drawn.tile.index,
            spot.row,
            spot.column,
            layer,
            row,
            column,
            float(drawn.maps[layer, at, row, column]),
        )
        for at, spot in enumerate(drawn.chosen)
        for layer in range(len(drawn.maps))
        for row, column in np.ndindex(*drawn.maps.shape[2:])
    ]
    return Table(("image", "tile", "from_row", "from_column", "layer", "row", "column", "attention_share"), rows)


def _findings(distances: Distances, scan: ScanSettings) -> tuple[str, ...]:
    means, windows = distances.by_head.mean(axis=1), 100 * distances.in_window.mean(axis=1)
    near, far = int(means.argmin()), int(means.argmax())
    shallow, deep = scan.shallow_layer, scan.deep_layer
    return (
        f"attention spans {means[0]:.1f} patches in layer 0 and {means[-1]:.1f} in layer {len(means) - 1}; "
        f"looking at all patches alike spans {distances.uniform_patches:.1f}",
        f"most local: layer {near} ({means[near]:.1f} patches), most global: layer {far} ({means[far]:.1f})",
        f"the local scan looks at layer {shallow} ({means[shallow]:.1f} patches), the global scan at layer {deep} "
        f"({means[deep]:.1f})",
        f"of a patch's attention stay in its window of {scan.window} x {scan.window} tokens: {windows[shallow]:.0f} % in layer "
        f"{shallow}, {windows[deep]:.0f} % in layer {deep}, {100 * distances.uniform_in_window:.0f} % looking at all alike",
    )


def _draw(figure: Any, *, drawn: PatchMaps, distances: Distances, layers: Sequence[int], scan: ScanSettings) -> None:
    patches = drawn.tile.patches
    panels, above, below = figures.map_grid(figure, [patches.rows / patches.columns] * len(drawn.chosen), 1 + len(layers))
    _draw_maps(above, panels, drawn, layers, scan)
    _draw_distances(below, distances, scan)


def _draw_maps(figure: Any, panels: Any, drawn: PatchMaps, layers: Sequence[int], scan: ScanSettings) -> None:
    image = np.asarray(drawn.tile.image)
    tall, wide = image.shape[0] / drawn.tile.patches.rows, image.shape[1] / drawn.tile.patches.columns
    for at, (row, spot) in enumerate(zip(panels, drawn.chosen, strict=True)):
        row[0].imshow(image)
        _outline(row[0], spot.column * wide - 0.5, spot.row * tall - 0.5, wide, tall)
        figures.bare(row[0])
        figures.named_row(row[0], f"patch {spot.row},{spot.column}\n{spot.why}".strip())
        for panel, layer in zip(row[1:], layers, strict=True):
            shown = figures.heat_map(panel, drawn.maps[layer, at])
            _outline(panel, spot.column - 0.5, spot.row - 0.5, 1, 1)
    panels[0][0].set_title(figures.shortened(drawn.tile.name, 20), fontsize=figures.SMALL)
    for panel, layer in zip(panels[0][1:], layers, strict=True):
        panel.set_title(layer_title(layer, scan), fontsize=figures.SMALL)
    figures.heat_scale(figure, shown, panels)


def _outline(panel: Any, left: float, top: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    for colour, line in (("black", 2.2), ("#56E4E9", 1.1)):
        panel.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=line))


def _draw_distances(figure: Any, distances: Distances, scan: ScanSettings) -> None:
    panels = figure.subplots(1, 2)
    by_head, layers = distances.by_head, np.arange(len(distances.by_head))
    low, high = np.quantile(by_head, [0.25, 0.75], axis=1)
    panel = panels[0]
    panel.fill_between(layers, low, high, color=figures.BLUE, alpha=0.2, linewidth=0, label="middle half of the heads")
    for head in by_head.T:
        panel.plot(layers, head, ".", color=figures.GREY, markersize=3.5, zorder=1)
    panel.plot([], [], ".", color=figures.GREY, markersize=3.5, label="one head")
    panel.plot(layers, by_head.mean(axis=1), "o-", color=figures.BLUE, markersize=4, linewidth=1.6, label="mean over heads")
    panel.axhline(
        distances.uniform_patches, color=figures.VERMILION, linewidth=1.2, linestyle="--", label="looking at all alike"
    )
    panel.set_ylabel("mean attention distance, patches", fontsize=figures.SMALL + 1)
    panel.set_ylim(bottom=0)
    _draw_shares(panels[1], distances, scan)
    for each in panels:
        figures.layer_axis(each, len(layers), [(scan.shallow_layer, "local scan"), (scan.deep_layer, "global scan")])
        figures.legend(each)


def _draw_shares(panel: Any, distances: Distances, scan: ScanSettings) -> None:
    lines: Mapping[str, tuple[np.ndarray, str, str]] = {
        f"in its window of {scan.window} x {scan.window} tokens": (distances.in_window, figures.GREEN, "^-"),
        **({"to [CLS]": (distances.to_class, figures.PURPLE, "D-.")} if distances.has_class else {}),
    }
    for label, (shares, colour, style) in lines.items():
        panel.plot(100 * shares.mean(axis=1), style, color=colour, label=label, markersize=4, linewidth=1.3)
    line = {"color": figures.VERMILION, "linewidth": 1.2, "linestyle": "--"}
    panel.axhline(100 * distances.uniform_in_window, label="in its window, looking at all alike", **line)
    panel.set_ylabel("share of attention, %", fontsize=figures.SMALL + 1)
    panel.set_ylim(0, 104)
