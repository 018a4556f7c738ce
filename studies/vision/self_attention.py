"""How far each layer looks: where chosen patches look, and the mean distance that attention spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import Attending, ScanSettings
from studies.inputs import Picture
from studies.study import Result, Table, Task
from studies.vision import figures
from studies.vision.attending import Reach, has_class, looked_at, reach, uniform_reach, weights_from
from studies.vision.tiles import TileView, drawn_layers, layer_title, tiles_of
from studies.vision_half import Seen, VisionHalf
from vscan.errors import InvalidArgument

_APART = 0.25  # of the grid's longer side: how far from each other two chosen patches are at least
_MARKS = ("first (global)", "first (local)", "last (global)")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A patch whose attention is drawn."""

    row: int
    column: int
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PatchMaps:
    """Where chosen patches of one tile look."""

    tile: TileView
    chosen: tuple[Chosen, ...]
    maps: np.ndarray  # [layers, chosen, rows, columns]: shares of 1, less what goes to [CLS]


@dataclass(slots=True, eq=False)
class Distances:
    """How far each layer looks, by head, over all tiles: sums over patches."""

    has_class: bool = False
    patches: int = 0
    uniform: np.ndarray = field(default_factory=lambda: np.zeros(2))  # if all patches looked at all alike: as the next, [2]
    _layers: dict[int, np.ndarray] = field(default_factory=dict)  # each [3, heads]: as the fields of Reach

    def add_tile(self, grid: Grid, window: int) -> None:
        """One more tile is looked at."""
        self.patches += grid.tokens
        self.uniform = self.uniform + grid.tokens * np.array(uniform_reach(grid, window))

    def add(self, layer: int, sums: Reach) -> None:
        """What some patches of it do in one layer."""
        whole = torch.stack([sums.distance_patches, sums.in_window, sums.to_class]).numpy()
        self._layers[layer] = self._layers.get(layer, 0) + whole

    @property
    def uniform_patches(self) -> float:
        """The mean distance if every patch looked at all alike."""
        return float(self.uniform[0]) / self.patches

    @property
    def uniform_in_window(self) -> float:
        """The share in the window if every patch looked at all alike."""
        return float(self.uniform[1]) / self.patches

    @property
    def by_head(self) -> np.ndarray:
        """Mean distance in patches, [layers, heads]."""
        return self._of(0)

    @property
    def in_window(self) -> np.ndarray:
        """The share that stays in the window of the local scan, [layers, heads]."""
        return self._of(1)

    @property
    def to_class(self) -> np.ndarray:
        """The share that goes to [CLS], [layers, heads]."""
        return self._of(2)

    def table(self) -> Table:
        """A row for each layer."""
        columns: dict[str, np.ndarray] = {
            "distance_patches": self.by_head.mean(axis=1),
            "nearest_head_patches": self.by_head.min(axis=1),
            "lower_quartile_head_patches": np.quantile(self.by_head, 0.25, axis=1),
            "upper_quartile_head_patches": np.quantile(self.by_head, 0.75, axis=1),
            "farthest_head_patches": self.by_head.max(axis=1),
            "uniform_attention_patches": np.full(len(self._layers), self.uniform_patches),
            "in_window_percent": 100 * self.in_window.mean(axis=1),
        }
        if self.has_class:
            columns["to_cls_percent"] = 100 * self.to_class.mean(axis=1)
        rows = [(layer, *map(float, values)) for layer, values in enumerate(zip(*columns.values(), strict=True))]
        return Table(("layer", *columns), rows)

    def _of(self, kind: int) -> np.ndarray:
        return np.stack([self._layers[layer][kind] for layer in sorted(self._layers)]) / self.patches


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


def measure(task: Task) -> Distances:
    """How far the layers look, over all tiles of all images and videos."""
    found = Distances()
    for picture in task.inputs.pictures:
        measure_one(task.model.vision, picture, found)
        task.advance()
    return found


def measure_one(vision: VisionHalf, picture: Picture, found: Distances) -> None:
    """Adds an image or video to `found`. Raises InvalidArgument."""
    seen = vision.see(picture)
    window = vision.model.scan.window * vision.model.patches_per_side

    def show(attending: Attending) -> None:
        found.has_class = has_class(attending)
        found.add(attending.layer, reach(attending, seen.patches[attending.tile], window))

    for grid in seen.patches:
        found.add_tile(grid, window)
    vision.observe(seen, show)


def patch_maps(
    vision: VisionHalf, picture: Picture, index: int = 0, asked: Sequence[tuple[int, int]] | None = None
) -> PatchMaps:
    """Where some patches of a tile look, in every layer: those asked for, or three that differ.

    Raises:
        InvalidArgument: no such tile or patch, or an image that cannot be read.
    """
    seen = vision.see(picture)
    tiles = tiles_of(picture, seen)
    if index >= len(tiles):
        raise InvalidArgument("--tile", f"{index}", limit=f"0 to {len(tiles) - 1} of {picture.name}")
    tile = tiles[index]
    chosen = _asked(asked, tile.patches) if asked else _differing(vision, seen, index)
    found: dict[int, torch.Tensor] = {}

    def show(attending: Attending) -> None:
        if attending.tile == index:
            rows = [
                weights_from(attending, spot.row * tile.patches.columns + spot.column, tile.patches.tokens) for spot in chosen
            ]
            found[attending.layer] = found.get(attending.layer, 0) + torch.stack(rows)

    vision.observe(seen, show)
    maps = torch.stack([found[layer] for layer in sorted(found)])
    return PatchMaps(tile, chosen, maps.view(*maps.shape[:2], tile.patches.rows, tile.patches.columns).numpy())


def _asked(asked: Sequence[tuple[int, int]], grid: Grid) -> tuple[Chosen, ...]:
    for row, column in asked:
        if row >= grid.rows or column >= grid.columns:
            raise InvalidArgument("--patch", f"{row},{column}", limit=f"{grid.rows - 1},{grid.columns - 1}, the last patch")
    return tuple(Chosen(row, column) for row, column in dict.fromkeys(asked))


def _differing(vision: VisionHalf, seen: Seen, index: int) -> tuple[Chosen, ...]:
    """What the global scan rates first, what the local scan does elsewhere, and what the global scan rates last."""
    scan, grid = vision.model.scan, seen.patches[index]
    scores = {layer: torch.zeros(grid.tokens) for layer in (scan.shallow_layer, scan.deep_layer)}

    def show(attending: Attending) -> None:
        if attending.tile == index and attending.layer in scores:
            places = attending.places[1:] if has_class(attending) else attending.places
            scores[attending.layer][places] = looked_at(attending, grid.tokens)

    vision.observe(seen, show)
    shallow, deep = scores[scan.shallow_layer], scores[scan.deep_layer]
    chosen: list[Chosen] = []
    for ranked, why in zip((deep, shallow, -deep), _MARKS, strict=True):
        spot = _best_apart(ranked, grid, chosen)
        if spot is not None:
            chosen.append(Chosen(*spot, why))
    return tuple(chosen)


def _best_apart(ranked: torch.Tensor, grid: Grid, chosen: Sequence[Chosen]) -> tuple[int, int] | None:
    apart = _APART * max(grid.rows, grid.columns)
    for place in ranked.argsort(descending=True, stable=True).tolist():
        row, column = divmod(place, grid.columns)
        if all((row - other.row) ** 2 + (column - other.column) ** 2 >= apart**2 for other in chosen):
            return row, column
    return None


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
