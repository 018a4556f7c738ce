"""What each layer looks at: attention from [CLS] to the patches, or, in towers without it, attention that patches receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from embedded_model.kinds import KINDS, kinds_of
from encoder_service.vision.base import Attending, ScanSettings
from studies.inputs import Inputs, Picture
from studies.loading import Model
from studies.study import Result, Table, Task
from studies.vision import figures
from studies.vision.attending import has_class, looked_at
from studies.vision.tiles import TileView, by_token, drawn_layers, layer_title, tiles_of
from studies.vision_half import VisionHalf

_SHOWN = 4
_TENTH = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class TileMaps:
    """One tile, and how much each layer looks at each of its tokens: shares of 1, less what [CLS] keeps for itself."""

    tile: TileView
    layers: np.ndarray  # [layers, rows, columns]
    from_class: bool

    @property
    def shares(self) -> np.ndarray:
        """[layers, tokens], each layer's summing to 1."""
        flat = self.layers.reshape(len(self.layers), -1)
        shares: np.ndarray = flat / flat.sum(axis=1, keepdims=True)
        return shares


@dataclass(slots=True, eq=False)
class LayerMeans:
    """Figures of each layer, means over tiles."""

    deep_layer: int
    tiles: int = 0
    _sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, maps: TileMaps) -> None:
        """One more tile."""
        self.tiles += 1
        for name, values in {**_concentration(maps, self.deep_layer), **_on_kinds(maps)}.items():
            self._sums[name] = self._sums.get(name, 0) + values

    def __getitem__(self, name: str) -> np.ndarray:
        """[layers]."""
        return self._sums[name] / self.tiles

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def table(self) -> Table:
        """A row for each layer."""
        names = [name for name in self._sums if not name.startswith(_AREA)]
        columns = [self[name] for name in names]
        rows = [(layer, self.tiles, *map(float, values)) for layer, values in enumerate(zip(*columns, strict=True))]
        return Table(("layer", "tiles", *names), rows)


_ENTROPY, _EFFECTIVE, _TOP = "entropy_bits", "effective_share_percent", "top_tenth_percent"
_SHARED, _CLASS, _AREA = "top_tenth_shared_with_global_percent", "kept_by_cls_percent", "area_of_"


def run(task: Task) -> Result:
    """The study."""
    vision = task.model.vision
    shown, means = look(task, task.options.get("show", _SHOWN))
    layers = drawn_layers(task.options.get("layers"), len(shown[0].layers), vision.model.scan)
    return Result(
        table=_cells(shown),
        more={"layers": means.table()},
        draw=partial(_draw, shown=shown, means=means, layers=layers, scan=vision.model.scan),
        findings=_findings(means, vision.model.scan, from_class=shown[0].from_class),
    )


def look(task: Task, keep: int) -> tuple[list[TileMaps], LayerMeans]:
    """The maps of the first `keep` tiles, and means over all."""
    means = LayerMeans(task.model.vision.model.scan.deep_layer)
    kept: list[TileMaps] = []
    for picture in task.inputs.pictures:
        for maps in maps_of(task.model.vision, picture):
            means.add(maps)
            if len(kept) < keep:
                kept.append(maps)
        task.advance()
    return kept, means


def maps_of(vision: VisionHalf, picture: Picture) -> list[TileMaps]:
    """Of every tile of an image or video. Raises InvalidArgument."""
    seen = vision.see(picture)
    tiles = tiles_of(picture, seen)
    found: list[dict[int, torch.Tensor]] = [{} for _ in tiles]
    by_class = []

    def show(attending: Attending) -> None:
        grid = tiles[attending.tile].patches
        layers = found[attending.tile]
        by_class.append(has_class(attending))
        values = looked_at(attending, grid.tokens)
        places = attending.places[1:] if by_class[-1] else attending.places
        layers.setdefault(attending.layer, torch.zeros(grid.tokens))[places] = values

    vision.observe(seen, show)
    side = vision.model.patches_per_side
    return [
        TileMaps(
            tile,
            torch.stack([side**2 * by_token(layers[at], tile.patches, side) for at in sorted(layers)]).numpy(),
            by_class[0],
        )
        for tile, layers in zip(tiles, found, strict=True)
    ]


def shares_table(model: Model, scenes: Inputs) -> str:
    """Markdown: the share of each layer's attention on what is in scenes, in per cent, beside their share of the patches."""
    _, means = look(Task(model, scenes), 0)
    lines = [f"| layer | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    rows = zip(*(means[f"{kind}_percent"] for kind in KINDS), strict=True)
    lines += [_table_line(str(layer), row) for layer, row in enumerate(rows)]
    lines.append(_table_line("share of patches", [means[_AREA + kind][0] for kind in KINDS]))
    return "\n".join(lines)


def _table_line(name: str, percents: Sequence[float]) -> str:
    return f"| {name} | {' | '.join(f'{percent:.1f}' for percent in percents)} |"


def _concentration(maps: TileMaps, deep_layer: int) -> dict[str, np.ndarray]:
    shares = maps.shares
    tokens = shares.shape[1]
    top = max(1, round(_TENTH * tokens))
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    entropy = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=1)
    values = {
        _ENTROPY: entropy,
        _EFFECTIVE: 100 * 2**entropy / tokens,
        _TOP: 100 * np.take_along_axis(shares, order, axis=1).sum(axis=1),
        _SHARED: 100 * np.isin(order, order[deep_layer]).mean(axis=1),
    }
    if maps.from_class:
        values[_CLASS] = 100 * (1 - maps.layers.sum(axis=(1, 2)))
    return values


def _on_kinds(maps: TileMaps) -> dict[str, np.ndarray]:
    """Of scenes, whose patches are known, and only while they are the model's own patches."""
    scene = maps.tile.source.scene
    if scene is None or scene.owner.shape != maps.layers.shape[1:]:
        return {}
    kinds = kinds_of(scene).reshape(-1)
    shares = {f"{name}_percent": 100 * maps.shares[:, kinds == kind].sum(axis=1) for kind, name in enumerate(KINDS)}
    areas = {_AREA + name: np.full(len(maps.layers), 100 * (kinds == kind).mean()) for kind, name in enumerate(KINDS)}
    return {**shares, **areas}


def _cells(shown: Sequence[TileMaps]) -> Table:
    rows = [
        (maps.tile.source.name, maps.tile.index, layer, row, column, float(maps.layers[layer, row, column]))
        for maps in shown
        for layer, row, column in np.ndindex(*maps.layers.shape)
    ]
    return Table(("image", "tile", "layer", "row", "column", "attention_share"), rows)


def _findings(means: LayerMeans, scan: ScanSettings, *, from_class: bool) -> tuple[str, ...]:
    whose = "attention from [CLS]" if from_class else "attention that patches receive"
    effective, shared = means[_EFFECTIVE], means[_SHARED]
    wide, narrow = int(effective.argmax()), int(effective.argmin())
    shallow = scan.shallow_layer
    lines = [
        f"{whose}, {means.tiles} tiles; the local scan looks at layer {shallow}, the global scan at layer {scan.deep_layer}",
        f"most spread: layer {wide} (over {effective[wide]:.0f} % of the patches), most concentrated: layer {narrow} "
        f"({effective[narrow]:.0f} %)",
        f"of the tenth of the patches that layer {shallow} looks at most, {shared[shallow]:.0f} % are also in that of layer "
        f"{scan.deep_layer} (chance: 10 %)",
    ]
    if _AREA + "letters" in means:
        lines += [_kind_finding(means, kind, scan) for kind in ("objects", "letters")]
    return tuple(lines)


def _kind_finding(means: LayerMeans, kind: str, scan: ScanSettings) -> str:
    shares = means[f"{kind}_percent"]
    best, shallow, deep = int(shares.argmax()), scan.shallow_layer, scan.deep_layer
    return (
        f"{kind} are {means[_AREA + kind][0]:.1f} % of the patches and get most in layer {best}: {shares[best]:.1f} %; "
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
            drawn = figures.heat_map(panel, maps.layers[layer])
    for panel, layer in zip(panels[0][1:], layers, strict=True):
        panel.set_title(layer_title(layer, scan), fontsize=figures.SMALL)
    figures.heat_scale(figure, drawn, panels)


def _draw_curves(figure: Any, means: LayerMeans, scan: ScanSettings) -> None:
    on_kinds = f"{KINDS[0]}_percent" in means
    panels = figure.subplots(1, 2 if on_kinds else 1, squeeze=False)[0]
    marks = [(scan.shallow_layer, "local scan"), (scan.deep_layer, "global scan")]
    lines = [
        (_EFFECTIVE, "patches it is spread over", figures.BLUE, "o-"),
        (_TOP, "attention on the top tenth", figures.VERMILION, "s--"),
        (_SHARED, "top tenth shared with global", figures.GREEN, "^:"),
    ]
    for name, label, colour, style in lines:
        panels[0].plot(means[name], style, color=colour, label=label, markersize=4, linewidth=1.3)
    panels[0].set_ylabel("share, %", fontsize=figures.SMALL + 1)
    panels[0].set_ylim(0, 104)
    if on_kinds:
        _draw_kinds(panels[1], means)
    for panel in panels:
        figures.layer_axis(panel, len(means[_TOP]), marks)
        figures.legend(panel)


def _draw_kinds(panel: Any, means: LayerMeans) -> None:
    styles = zip(KINDS, (figures.BLUE, figures.VERMILION, figures.GREEN, figures.GREY), ("o-", "s--", "^:", "D-."), strict=True)
    for kind, colour, style in styles:
        times = means[f"{kind}_percent"] / means[_AREA + kind]
        panel.plot(
            times, style, color=colour, label=f"{kind} ({means[_AREA + kind][0]:.1f} % of patches)", markersize=4, linewidth=1.3
        )
    panel.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    panel.set_ylabel("attention / share of patches", fontsize=figures.SMALL + 1)
