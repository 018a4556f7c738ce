"""How much each layer looks at each token of a tile, and what such maps come to over many tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from embedded_model.kinds import KINDS, kinds_of
from encoder_service.vision.base import Attending
from studies.inputs import Picture
from studies.study import Table, Task
from studies.vision.attending import has_class, looked_at
from studies.vision.tiles import TileView, by_token, tiles_of
from studies.vision_half import VisionHalf

_TENTH = 0.1
_LEAST = 1e-30
# Names of figures; those of areas are followed by what they are of.
ENTROPY, EFFECTIVE, TOP = "entropy_bits", "effective_share_percent", "top_tenth_percent"
SHARED, KEPT, AREA = "top_tenth_shared_with_global_percent", "kept_by_cls_percent", "area_of_"
CHANCE = "top_tenth_of_tokens_percent"  # what is shared by chance: a tenth, but for rounding


@dataclass(frozen=True, slots=True, eq=False)
class TileMaps:
    """One tile, and how much each layer looks at each of its tokens: shares of 1, less what [CLS] keeps for itself."""

    tile: TileView
    layers: np.ndarray  # [layers, rows, columns]
    from_class: bool

    @property
    def rated(self) -> np.ndarray:
        """Which tokens are no padding, [rows, columns], bool."""
        valid, shape = self.tile.valid, self.layers.shape[1:]
        return np.ones(shape, dtype=bool) if valid is None else valid.numpy().reshape(shape)

    @property
    def shares(self) -> np.ndarray:
        """[layers, tokens that are no padding], each layer's summing to 1; to 0 where [CLS] keeps all for itself."""
        chosen = self.layers[:, self.rated]
        shares: np.ndarray = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), _LEAST)
        return shares


@dataclass(slots=True, eq=False)
class LayerMeans:
    """Figures of each layer, means over tiles."""

    deep_layer: int
    tiles: int = 0
    _sums: dict[str, np.ndarray] = field(default_factory=dict)
    _tiles: dict[str, int] = field(default_factory=dict)  # that have the figure

    def add(self, maps: TileMaps) -> None:
        """One more tile."""
        self.tiles += 1
        for name, values in {**_concentration(maps, self.deep_layer), **_on_kinds(maps)}.items():
            self._sums[name] = self._sums.get(name, 0) + values
            self._tiles[name] = self._tiles.get(name, 0) + 1

    def __getitem__(self, name: str) -> np.ndarray:
        """[layers]."""
        return self._sums[name] / self._tiles[name]

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def table(self) -> Table:
        """A row for each layer."""
        names = [name for name in self._sums if not name.startswith(AREA)]
        columns = [self[name] for name in names]
        rows = [(layer, self.tiles, *map(float, values)) for layer, values in enumerate(zip(*columns, strict=True))]
        return Table(("layer", "tiles", *names), rows)


def look(
    task: Task, keep: int, at_first: Callable[[TileMaps], object] = lambda maps: None
) -> tuple[list[TileMaps], LayerMeans]:
    """The maps of the first `keep` tiles, and means over all; `at_first` may refuse what the first tile shows to be wrong."""
    means = LayerMeans(task.model.vision.model.scan.deep_layer)
    kept: list[TileMaps] = []
    for picture in task.inputs.pictures:
        for maps in maps_of(task.model.vision, picture):
            if not means.tiles:
                at_first(maps)
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


def _concentration(maps: TileMaps, deep_layer: int) -> dict[str, np.ndarray]:
    shares = maps.shares
    tokens = shares.shape[1]
    top = max(1, round(_TENTH * tokens))
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    entropy = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=1)
    values = {
        ENTROPY: entropy,
        EFFECTIVE: 100 * 2**entropy / tokens,
        TOP: 100 * np.take_along_axis(shares, order, axis=1).sum(axis=1),
        CHANCE: np.full(len(shares), 100 * top / tokens),
        SHARED: 100 * np.isin(order, order[deep_layer]).mean(axis=1),
    }
    if maps.from_class:
        values[KEPT] = 100 * (1 - maps.layers.sum(axis=(1, 2)))
    return values


def _on_kinds(maps: TileMaps) -> dict[str, np.ndarray]:
    """Of scenes, whose patches are known, and only of tiles that show all of one in just those patches."""
    scene = maps.tile.source.scene
    if scene is None or maps.tile.index or scene.owner.shape != maps.layers.shape[1:]:
        return {}
    kinds = kinds_of(scene).reshape(-1)
    shares = {f"{name}_percent": 100 * maps.shares[:, kinds == kind].sum(axis=1) for kind, name in enumerate(KINDS)}
    areas = {AREA + name: np.full(len(maps.layers), 100 * (kinds == kind).mean()) for kind, name in enumerate(KINDS)}
    return {**shares, **areas}
