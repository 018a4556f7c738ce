"""The studies of the vision transformer on a model whose attention is known: planted, uniform, and each patch to itself."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import CLASS_ROW, Attending
from studies.inputs import Inputs, draw_scenes, read_inputs
from studies.loading import Model, open_model
from studies.study import Task
from studies.vision.attending import reach, uniform_reach
from studies.vision.distances import measure
from studies.vision.patch_maps import patch_maps
from studies.vision.tile_maps import look, maps_of
from studies.vision.tiles import drawn_layers
from tests.support.planted import PATCHES, PLANTED, SIDE, planted_shares, write_planted
from vscan.errors import InvalidArgument

UNIFORM, ONE, ITSELF = range(3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.set_num_threads(1)
    return open_model(write_planted(tmp_path_factory.mktemp("planted")), device="cpu")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return draw_scenes(2, seed=3)


def distances(rows: int, columns: int) -> np.ndarray:
    """Between the centres of all pairs of patches, as the definition says."""
    spots = list(itertools.product(range(rows), range(columns)))
    return np.array([[math.dist(a, b) for b in spots] for a in spots])


def test_cls_attention_peaks_where_it_was_planted(model: Model, inputs: Inputs) -> None:
    (maps,) = maps_of(model.vision, inputs.pictures[0])
    assert maps.layers.shape == (3, SIDE, SIDE), "layer 3 is not served"
    planted, other = planted_shares()
    expected = np.full((SIDE, SIDE), other)
    expected[PLANTED] = planted
    np.testing.assert_allclose(maps.layers[ONE], expected, rtol=1e-4)
    np.testing.assert_allclose(maps.layers[UNIFORM], 1 / (PATCHES + 1), rtol=1e-4)


def test_figures_of_layers_are_those_of_known_maps(model: Model, inputs: Inputs) -> None:
    _, means = look(Task(model, inputs), keep=0)
    assert means.tiles == 2
    planted, other = planted_shares()
    whole = planted + (PATCHES - 1) * other
    assert means["entropy_bits"][UNIFORM] == pytest.approx(4)
    assert means["effective_share_percent"][UNIFORM] == pytest.approx(100)
    parts = [planted / whole, *[other / whole] * (PATCHES - 1)]
    assert means["entropy_bits"][ONE] == pytest.approx(-sum(part * math.log2(part) for part in parts), rel=1e-4)
    assert means["top_tenth_percent"][UNIFORM] == pytest.approx(100 * 2 / PATCHES, rel=1e-4), "2 of 16 patches"
    assert means["top_tenth_percent"][ONE] == pytest.approx(100 * (planted + other) / whole, rel=1e-4)
    assert means["top_tenth_shared_with_global_percent"][2] == 100
    assert means["kept_by_cls_percent"][UNIFORM] == pytest.approx(100 / (PATCHES + 1), rel=1e-3)
    assert means["kept_by_cls_percent"][ONE] == pytest.approx(100 * (1 - whole), rel=1e-3)
    assert "objects_percent" not in means, "this model's patches are not those of the scenes"


def test_mean_attention_distance_has_its_closed_form(model: Model, inputs: Inputs) -> None:
    found = measure(Task(model, inputs))
    apart = distances(SIDE, SIDE)
    planted, other = planted_shares()
    weights = np.full(PATCHES, other)
    weights[SIDE * PLANTED[0] + PLANTED[1]] = planted
    expected = [apart.mean(), (apart @ weights).mean() / weights.sum(), 0]
    np.testing.assert_allclose(found.by_head, np.stack([expected] * 2, axis=1), rtol=1e-4, atol=1e-6)
    assert found.uniform_patches == pytest.approx(apart.mean())
    assert found.by_head[UNIFORM, 0] == pytest.approx(found.uniform_patches, rel=1e-5)
    # The scan's window is the whole grid of 4 x 4 tokens here.
    np.testing.assert_allclose(found.in_window, 1, rtol=1e-6)
    to_class = [1 / (PATCHES + 1), 1 - weights.sum(), 0]
    np.testing.assert_allclose(found.to_class, np.stack([to_class] * 2, axis=1), rtol=1e-3, atol=1e-6)


def test_chosen_patches_look_where_they_must(model: Model, inputs: Inputs) -> None:
    drawn = patch_maps(model.vision, inputs.pictures[0], asked=[(3, 0), (0, 1), (3, 0)])
    assert [(spot.row, spot.column) for spot in drawn.chosen] == [(3, 0), (0, 1)]
    for at, spot in enumerate(drawn.chosen):
        itself = np.zeros((SIDE, SIDE))
        itself[spot.row, spot.column] = 1
        np.testing.assert_allclose(drawn.maps[ITSELF, at], itself, atol=1e-6)
        assert np.unravel_index(drawn.maps[ONE, at].argmax(), (SIDE, SIDE)) == PLANTED
    with pytest.raises(InvalidArgument, match="--patch: 4,0, limit 3,3"):
        patch_maps(model.vision, inputs.pictures[0], asked=[(4, 0)])
    with pytest.raises(InvalidArgument, match="--tile: 1, limit 0 to 0"):
        patch_maps(model.vision, inputs.pictures[0], 1)


def test_patches_chosen_for_their_scores_differ_and_lie_apart() -> None:
    scenes = draw_scenes(2, seed=0)
    drawn = patch_maps(open_model(None, device="cpu").vision, scenes.pictures[1])
    spots = [(spot.row, spot.column) for spot in drawn.chosen]
    assert len(spots) == 3
    assert all(math.dist(a, b) >= 3 for a, b in itertools.combinations(spots, 2))
    scene = scenes.pictures[1].scene
    assert scene is not None
    assert scene.owner[spots[0]] >= 0, "the global scan of this model rates objects first"


@pytest.mark.parametrize("grid", [Grid(12, 12), Grid(5, 9), Grid(1, 7)])
@pytest.mark.parametrize("window", [1, 4, 6, 20])
def test_looking_at_all_alike_is_the_mean_over_pairs(grid: Grid, window: int) -> None:
    apart = distances(grid.rows, grid.columns)
    cells = [
        (min(r // window, max(1, grid.rows // window) - 1), min(c // window, max(1, grid.columns // window) - 1))
        for r, c in itertools.product(range(grid.rows), range(grid.columns))
    ]
    together = np.array([[a == b for b in cells] for a in cells])
    assert uniform_reach(grid, window) == pytest.approx((apart.mean(), together.mean()))
    heads, rows = 3, grid.tokens
    even = Attending(0, 0, torch.arange(CLASS_ROW, rows), torch.zeros(heads, rows + 1, 4), torch.zeros(heads, rows + 1, 4), 1.0)
    sums = reach(even, grid, window)
    np.testing.assert_allclose(sums.distance_patches / rows, apart.mean(), rtol=1e-5)
    np.testing.assert_allclose(sums.in_window / rows, together.mean(), rtol=1e-5)
    np.testing.assert_allclose(sums.to_class / rows, 1 / (rows + 1), rtol=1e-4)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 41, 4, generator=generator)
    attending = Attending(0, 0, torch.arange(CLASS_ROW, 40), query, key, 0.5)
    whole = reach(attending, Grid(5, 8), 2)
    monkeypatch.setattr("studies.vision.attending._BLOCK_WEIGHTS", 3 * 41 * 7)
    pieces = reach(attending, Grid(5, 8), 2)
    for name in ("distance_patches", "in_window", "to_class"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name))


def test_layers_are_spread_and_those_of_the_scans_among_them(model: Model) -> None:
    scan = model.vision.model.scan
    assert drawn_layers(None, 3, scan) == (0, 1, 2)
    spread = drawn_layers(None, 32, scan)
    assert len(spread) == 8
    assert {0, scan.shallow_layer, scan.deep_layer, 31} <= set(spread)
    assert drawn_layers((0, 2), 3, scan) == (0, 2)
    with pytest.raises(InvalidArgument, match="--layers: 3, limit 0 to 2"):
        drawn_layers((3,), 3, scan)


def test_a_tile_shows_what_the_model_is_given(model: Model, tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (picture,) = read_inputs(tmp_path, count=1, seed=0, with_questions=False).pictures
    (tile,) = model.vision.see(picture).tiles
    np.testing.assert_array_equal(np.asarray(tile), noise)
