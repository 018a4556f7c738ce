"""Where visual tokens stand in their picture, and maps over pictures of different grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.language.bias import centre_of, chance_unevenness, unevenness
from studies.language.picture import PictureMap, places_of, tile_parts
from studies.language.spread import Spread
from vscan.visual_tokens import PickedBy, Tile, VisualTokens


def value(tiles: list[tuple[int, int, list[int]]], picks: dict[int, PickedBy] | None = None) -> VisualTokens:
    """Tiles of rows x columns that keep these places; `picks`: which scan has some tokens, the rest are of the global one."""
    kept, start = [], 0
    for rows, columns, places in tiles:
        kept += [start + place for place in places]
        start += rows * columns
    picked_by = torch.full((len(kept),), int(PickedBy.GLOBAL), dtype=torch.uint8)
    for token, scan in (picks or {}).items():
        picked_by[token] = int(scan)
    shapes = tuple(Tile(rows, columns, len(places)) for rows, columns, places in tiles)
    return VisualTokens(torch.zeros(len(kept), 4), torch.tensor(kept), picked_by, None, shapes, start)


def test_places_are_fractions_of_the_picture() -> None:
    parts = tile_parts([value([(2, 4, [0, 7])])])
    assert places_of(parts, 2).tolist() == [[0.25, 0.125], [0.75, 0.875]]


def test_newlines_stand_nowhere_and_make_no_column() -> None:
    """A base tile of 1 x 2, and a stitched one of 2 x 2 with its newlines in the third column."""
    image = value([(1, 2, [0, 1]), (2, 3, [1, 2, 3, 5])], {3: PickedBy.NEWLINE, 5: PickedBy.NEWLINE})
    parts = tile_parts([image])
    assert [part.sides for part in parts] == [(1, 2), (2, 2)]
    places = places_of(parts, 6)
    assert places[[0, 1, 2, 4]].tolist() == [[0.5, 0.25], [0.5, 0.75], [0.25, 0.75], [0.75, 0.25]]
    assert np.isnan(places[[3, 5]]).all()


def test_class_tokens_stand_nowhere_and_tokens_of_later_images_come_behind() -> None:
    frame = value([(1, 1, [0]), (1, 2, [1])], {0: PickedBy.CLASS})
    parts = tile_parts([value([(1, 2, [0])]), frame])
    assert [part.token.tolist() for part in parts] == [[0], [2]]
    assert places_of(parts, 3)[2].tolist() == [0.5, 0.75]


def test_a_map_counts_tiles_of_one_grid_exactly() -> None:
    counted = PictureMap()
    for chosen in ([0, 5], [5], [1, 5]):
        counted.add(tile_parts([value([(2, 3, [0, 1, 2, 3, 4, 5])])]), torch.tensor(chosen))
    assert counted.shares() == pytest.approx(np.array([[1, 1, 0], [0, 0, 3]]) / 3)


def test_a_finer_grid_is_laid_over_the_usual_one_by_area() -> None:
    counted = PictureMap()
    coarse = tile_parts([value([(1, 2, [0, 1])])])
    fine = tile_parts([value([(2, 3, [0, 1, 2, 3, 4, 5])])])
    for parts, chosen in ((coarse, [0]), (coarse, [0]), (fine, [1, 5])):
        counted.add(parts, torch.tensor(chosen))
    # Of the fine tile's left half, 1/2 of a third of a row of two; of its right half that, and a whole token.
    assert counted.shares() == pytest.approx(np.array([[(2 + 1 / 6) / 3, (1 / 6 + 2 / 6) / 3]]))
    assert counted.tiles == {(1, 2): 2, (2, 3): 1}


def test_laying_over_keeps_an_even_map_even() -> None:
    counted = PictureMap()
    for rows, columns in ((5, 7), (5, 7), (3, 11), (8, 2)):
        every = list(range(rows * columns))
        counted.add(tile_parts([value([(rows, columns, every)])]), torch.tensor(every))
    assert (counted.shares() == 1).all(), "not nearly: less than all would be taken for a choice of the encoder's"


def test_the_centre_of_mass_of_the_example() -> None:
    centre = centre_of(tile_parts([value([(2, 4, list(range(8)))])]), torch.tensor([2, 7]), 8)
    assert (centre.row, centre.column) == (0.5, 0.75)
    assert (centre.row_deviation, centre.column_deviation) == (0.25, 0.125)
    assert centre.raster == pytest.approx((2 / 7 + 1) / 2)


def test_unevenness_of_the_example() -> None:
    every = np.ones((2, 2))
    assert unevenness(np.array([[0.5, 0.1], [0.1, 0.1]]), every) == pytest.approx(0.375)
    assert unevenness(np.full((2, 2), 0.2), every) == pytest.approx(0)
    assert unevenness(np.array([[0.3, 0.1]]), np.array([[0.9, 0.3]])) == pytest.approx(0)


@pytest.mark.parametrize("handed_over", [1.0, 0.6])
def test_what_chance_comes_to(handed_over: float) -> None:
    """Tokens drawn at random from candidates that are sparser on the right."""
    generator, tiles = np.random.default_rng(0), 60
    odds = np.broadcast_to(np.linspace(1, handed_over, 300), (300, 300))
    candidates = generator.random((tiles, 300, 300)) < odds
    drawn = candidates & (generator.random(candidates.shape) < 0.3)
    expected = unevenness(drawn.mean(axis=0), candidates.mean(axis=0))
    assert chance_unevenness(candidates.mean(axis=0), 0.3, tiles) == pytest.approx(expected, rel=0.02)


def test_the_interval_of_independent_values_is_the_usual_one() -> None:
    numbers = [0.1, 0.4, 0.35, 0.8, 0.2]
    spread = Spread.of(numbers, list("abcde"))
    assert spread.half_width == pytest.approx(2.776 * np.std(numbers, ddof=1) / np.sqrt(5))
    assert (spread.mean, spread.median) == pytest.approx((np.mean(numbers), 0.35))


@pytest.mark.parametrize(("groups", "quantile"), [(2, 12.706), (6, 2.571), (11, 2.228), (31, 2.042), (1001, 1.962)])
def test_an_interval_is_as_wide_as_so_few_pictures_make_it(groups: int, quantile: float) -> None:
    """Student's t, as tables have it."""
    numbers = np.random.default_rng(groups).normal(size=groups)
    error = np.std(numbers, ddof=1) / np.sqrt(groups)
    assert Spread.of(numbers.tolist(), [str(n) for n in range(groups)]).half_width == pytest.approx(quantile * error, rel=0.011)


def test_questions_about_one_picture_count_as_one() -> None:
    once, again = Spread.of([0.1, 0.4, 0.8], list("abc")), Spread.of([0.1, 0.1, 0.4, 0.4, 0.8, 0.8], list("aabbcc"))
    assert again.half_width == pytest.approx(once.half_width)
    assert Spread.of([0.1, 0.4], ["a", "a"]).half_width == float("inf")
