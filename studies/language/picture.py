"""Where visual tokens stand in their picture, and maps over pictures whose grids differ.

A tile of 2 x 3 tokens; a place is the middle of its token, as a fraction of the picture's height and width:

    index     0 1 2        row      1/4 1/4 1/4        column   1/6 3/6 5/6
              3 4 5                 3/4 3/4 3/4                 1/6 3/6 5/6

Every tile is taken to show the whole picture, as the tiles of all families do: the base and the stitched tile of LLaVA-NeXT,
the frames of a video. Newlines and [CLS] tokens stand nowhere in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vscan.visual_tokens import PickedBy, VisualTokens

_NO_PLACE = (int(PickedBy.NEWLINE), int(PickedBy.CLASS))
Sides = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TilePart:
    """The visual tokens of one tile of the prompt that stand in the picture."""

    sides: Sides  # rows and columns of the tile, newlines left out
    token: np.ndarray  # [p], which of the prompt's visual tokens, ascending
    row: np.ndarray  # [p], from 0
    column: np.ndarray  # [p]


def tile_parts(images: Sequence[VisualTokens]) -> list[TilePart]:
    """The tiles of all images of a prompt, in its order; those without any token in the picture are left out."""
    parts, first_token = [], 0
    for image in images:
        kept, picked = image.kept_indices.numpy(), image.picked_by.numpy()
        first_row = first_place = 0
        for tile in image.tiles:
            own = slice(first_row, first_row + tile.kept_count)
            newlines = bool((picked[own] == int(PickedBy.NEWLINE)).any())
            shown = ~np.isin(picked[own], _NO_PLACE)
            place = kept[own][shown] - first_place
            if shown.any():
                token = first_token + first_row + np.flatnonzero(shown)
                sides = (tile.rows, tile.columns - newlines)
                parts.append(TilePart(sides, token, place // tile.columns, place % tile.columns))
            first_row, first_place = first_row + tile.kept_count, first_place + tile.rows * tile.columns
        first_token += image.kept_count
    return parts


def places_of(parts: Sequence[TilePart], tokens: int) -> np.ndarray:
    """Row and column of each of the prompt's visual tokens, as fractions of the picture, [tokens, 2]; NaN for those nowhere."""
    places = np.full((tokens, 2), np.nan)
    for part in parts:
        places[part.token, 0] = (part.row + 0.5) / part.sides[0]
        places[part.token, 1] = (part.column + 0.5) / part.sides[1]
    return places


class PictureMap:
    """In how large a share of tiles the token at each place was among the chosen ones."""

    def __init__(self) -> None:
        self._chosen: dict[Sides, np.ndarray] = {}
        self._tiles: dict[Sides, int] = {}

    def add(self, parts: Sequence[TilePart], chosen: torch.Tensor) -> None:
        """One prompt's tiles; `chosen` are some of its visual tokens, [n], int64."""
        for part in parts:
            total = self._chosen.setdefault(part.sides, np.zeros(part.sides))
            of_tile = np.isin(part.token, chosen.numpy())
            total[part.row[of_tile], part.column[of_tile]] += 1
            self._tiles[part.sides] = self._tiles.get(part.sides, 0) + 1

    @property
    def tiles(self) -> Mapping[Sides, int]:
        """How many tiles of each size were added."""
        return dict(self._tiles)

    def shares(self) -> np.ndarray:
        """[rows, columns], 0 to 1, on the grid that most tiles have; other tiles are laid over it, area for area."""
        sides = usual_sides(self._tiles.items())
        laid = [(_laid_over(self._chosen[own], sides), count) for own, count in self._tiles.items()]
        total: np.ndarray = sum((chosen for chosen, _ in laid), np.zeros(sides))
        shares: np.ndarray = total / sum(count for _, count in laid)
        return shares


def usual_sides(tiles: Iterable[tuple[Sides, int]]) -> Sides:
    """The size that most tiles have; of equally many the smaller."""
    return min(tiles, key=lambda entry: (-entry[1], entry[0]))[0]


def _laid_over(values: np.ndarray, sides: Sides) -> np.ndarray:
    """Means of `values` over the cells of another grid of the same picture; the very values where the grids are equal."""
    if values.shape == sides:
        return values
    down, across = (_overlaps(cells, own) for cells, own in zip(sides, values.shape, strict=True))
    laid: np.ndarray = down @ values @ across.T / values.size
    return laid


def _overlaps(cells: int, tokens: int) -> np.ndarray:
    """How much of each of `cells` equal cells each of `tokens` equal tokens of the same length covers, [cells, tokens].

    In parts of which a cell has `tokens`: whole numbers, so that what is full stays full whatever grid it is laid over.

    2 cells, 3 tokens     2 1 0
                          0 1 2
    """
    low = np.maximum(np.arange(cells)[:, None] * tokens, np.arange(tokens) * cells)
    high = np.minimum((np.arange(cells)[:, None] + 1) * tokens, (np.arange(tokens) + 1) * cells)
    covered: np.ndarray = np.clip(high - low, 0, None)
    return covered
