"""Where chosen patches look, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import Attending
from studies.inputs import Picture
from studies.options import MOST_ROWS
from studies.vision.attending import has_class, looked_at, weights_from
from studies.vision.tiles import TileView, tiles_of
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
    different = dict.fromkeys(asked)
    if len(different) > MOST_ROWS:
        raise InvalidArgument("--patch", f"{len(different)} of them", limit=f"{MOST_ROWS}")
    for row, column in different:
        if row >= grid.rows or column >= grid.columns:
            raise InvalidArgument("--patch", f"{row},{column}", limit=f"{grid.rows - 1},{grid.columns - 1}, the last patch")
    return tuple(Chosen(row, column) for row, column in different)


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
        spot = _best_apart(ranked.masked_fill(~seen.rated_patches(index), -torch.inf), grid, chosen)
        if spot is not None:
            chosen.append(Chosen(*spot, why))
    return tuple(chosen)


def _best_apart(ranked: torch.Tensor, grid: Grid, chosen: Sequence[Chosen]) -> tuple[int, int] | None:
    apart = _APART * max(grid.rows, grid.columns)
    order = ranked.argsort(descending=True, stable=True)
    for place in order[ranked[order] > -torch.inf].tolist():
        row, column = divmod(place, grid.columns)
        if all((row - other.row) ** 2 + (column - other.column) ** 2 >= apart**2 for other in chosen):
            return row, column
    return None
