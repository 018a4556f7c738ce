"""What each layer looks at: attention from [CLS] to the patches, or, in towers without it, attention that patches receive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from embedded_model.kinds import KINDS
from encoder_service.vision.base import ScanSettings
from studies.inputs import Inputs
from studies.loading import Model
from studies.study import Result, Table, Task
from studies.vision import figures
from studies.vision.tile_maps import AREA, CHANCE, EFFECTIVE, SHARED, TOP, LayerMeans, TileMaps, look
from studies.vision.tiles import drawn_layers, layer_title
from studies.words import counted

_SHOWN = 4


def run(task: Task) -> Result:
    """The study."""
    vision = task.model.vision
    chosen = partial(drawn_layers, task.options.get("layers"), scan=vision.model.scan)
    shown, means = look(task, task.options.get("show", _SHOWN), at_first=lambda maps: chosen(count=len(maps.layers)))
    layers = chosen(count=len(shown[0].layers))
    return Result(
        table=_cells(shown),
        more={"layers": means.table()},
        draw=partial(_draw, shown=shown, means=means, layers=layers, scan=vision.model.scan),
        findings=_findings(means, vision.model.scan, from_class=shown[0].from_class),
    )


def shares_table(model: Model, scenes: Inputs) -> str:
    """Markdown: the share of each layer's attention on what is in scenes, in per cent, beside their share of the patches."""
    _, means = look(Task(model, scenes), 0)
    lines = [f"| layer | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    rows = zip(*(means[f"{kind}_percent"] for kind in KINDS), strict=True)
    lines += [_table_line(str(layer), row) for layer, row in enumerate(rows)]
    lines.append(_table_line("share of patches", [means[AREA + kind][0] for kind in KINDS]))
    return "\n".join(lines)


def _table_line(name: str, percents: Sequence[float]) -> str:
    return f"| {name} | {' | '.join(f'{percent:.1f}' for percent in percents)} |"


def _cells(shown: Sequence[TileMaps]) -> Table:
    rows = [
        (maps.tile.source.name, maps.tile.index, layer, row, column, float(maps.layers[layer, row, column]))
        for maps in shown
        for layer, row, column in np.ndindex(*maps.layers.shape)
    ]
    return Table(("image", "tile", "layer", "row", "column", "attention_share"), rows)


def _findings(means: LayerMeans, scan: ScanSettings, *, from_class: bool) -> tuple[str, ...]:
    whose = "attention from [CLS]" if from_class else "attention that patches receive"
    effective, shared = means[EFFECTIVE], means[SHARED]
    wide, narrow = int(effective.argmax()), int(effective.argmin())
    shallow = scan.shallow_layer
    lines = [
        f"{whose}, {counted(means.tiles, 'tile')}; the local scan looks at layer {shallow}, "
        f"the global scan at layer {scan.deep_layer}",
        f"most spread: layer {wide} (over {effective[wide]:.0f} % of the patches), most concentrated: layer {narrow} "
        f"({effective[narrow]:.0f} %)",
        f"of the tenth of the patches that layer {shallow} looks at most, {shared[shallow]:.0f} % are also in that of layer "
        f"{scan.deep_layer} (chance: {means[CHANCE][0]:.0f} %)",
    ]
    if AREA + "letters" in means:
        lines += [_kind_finding(means, kind, scan) for kind in ("objects", "letters")]
    return tuple(lines)


def _kind_finding(means: LayerMeans, kind: str, scan: ScanSettings) -> str:
    shares = means[f"{kind}_percent"]
    best, shallow, deep = int(shares.argmax()), scan.shallow_layer, scan.deep_layer
    return (
        f"{kind} are {means[AREA + kind][0]:.1f} % of the patches and get most in layer {best}: {shares[best]:.1f} %; "
        f"in layer {shallow} {shares[shallow]:.1f} %, in layer {deep} {shares[deep]:.1f} %"
    )


def _draw(figure: Any, *, shown: Sequence[TileMaps], means: LayerMeans, layers: Sequence[int], scan: ScanSettings) -> None:
    heights = [maps.tile.patches.rows / maps.tile.patches.columns for maps in shown]
    panels, above, below = figures.map_grid(figure, heights, 1 + len(layers))
    _draw_maps(above, panels, shown, layers, scan)
    _draw_curves(below, means, scan)


def _draw_maps(figure: Any, panels: Any, shown: Sequence[TileMaps], layers: Sequence[int], scan: ScanSettings) -> None:
    for row, maps in zip(panels, shown, strict=True):
        row[0].imshow(np.asarray(maps.tile.image))
        figures.bare(row[0])
        figures.named_row(row[0], maps.tile.name)
        for panel, layer in zip(row[1:], layers, strict=True):
            drawn = figures.heat_map(panel, np.where(maps.rated, maps.layers[layer], np.nan))
    for panel, layer in zip(panels[0][1:], layers, strict=True):
        panel.set_title(layer_title(layer, scan), fontsize=figures.SMALL)
    figures.heat_scale(figure, drawn, panels)


def _draw_curves(figure: Any, means: LayerMeans, scan: ScanSettings) -> None:
    on_kinds = f"{KINDS[0]}_percent" in means
    panels = figure.subplots(1, 2 if on_kinds else 1, squeeze=False)[0]
    marks = [(scan.shallow_layer, "local scan"), (scan.deep_layer, "global scan")]
    lines = [
        (EFFECTIVE, "patches it is spread over", figures.BLUE, "o-"),
        (TOP, "attention on the top tenth", figures.VERMILION, "s--"),
        (SHARED, "top tenth shared with global", figures.GREEN, "^:"),
    ]
    for name, label, colour, style in lines:
        panels[0].plot(means[name], style, color=colour, label=label, markersize=4, linewidth=1.3)
    panels[0].set_ylabel("share, %", fontsize=figures.SMALL + 1)
    panels[0].set_ylim(0, 104)
    if on_kinds:
        _draw_kinds(panels[1], means)
    for panel in panels:
        figures.layer_axis(panel, len(means[TOP]), marks)
        figures.legend(panel)


def _draw_kinds(panel: Any, means: LayerMeans) -> None:
    styles = zip(KINDS, (figures.BLUE, figures.VERMILION, figures.GREEN, figures.GREY), ("o-", "s--", "^:", "D-."), strict=True)
    for kind, colour, style in styles:
        times = means[f"{kind}_percent"] / means[AREA + kind]
        panel.plot(
            times, style, color=colour, label=f"{kind} ({means[AREA + kind][0]:.1f} % of patches)", markersize=4, linewidth=1.3
        )
    panel.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    panel.set_ylabel("attention / share of patches", fontsize=figures.SMALL + 1)
