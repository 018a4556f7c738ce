"""Where a grid of patches lies on the picture: worked by hand, and against what the image processors make of it."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from encoder_service.reduction.budget import Grid
from encoder_service.vision.areas import WHOLE, Canvas, fitted, processed, squeezed
from encoder_service.vision.base import PreparedImage, VisionModel
from encoder_service.vision.llava_next import AnyresImage
from tests.support.encoder import LLAVA15
from tests.support.llava_next import make_checkpoint
from tests.support.qwen import QWEN
from tests.support.video_llava import frames_of_noise, shared_video_llava
from tests.support.vision import load
from vscan.visual_tokens import Area, SampledFrames


def edges(area: Area) -> tuple[float, float, float, float]:
    return (area.left, area.top, area.right, area.bottom)


def clip(**settings: Any) -> Any:
    usual: dict[str, Any] = {"size": {"shortest_edge": 20}, "crop_size": {"height": 20, "width": 20}}
    return SimpleNamespace(**usual | {"do_resize": True, "do_center_crop": True} | settings)


def of(canvas: Canvas | None) -> tuple[float, float, float, float]:
    assert canvas is not None
    return edges(canvas.area)


@pytest.mark.parametrize(
    ("width", "height", "settings", "expected"),
    [
        pytest.param(80, 40, {}, (0.25, 0, 0.75, 1), id="the middle of a wide picture"),
        pytest.param(40, 80, {}, (0, 0.25, 1, 0.75), id="the middle of a high one"),
        pytest.param(40, 40, {}, (0, 0, 1, 1), id="all of a square"),
        pytest.param(80, 40, {"size": {"height": 20, "width": 20}}, (0, 0, 1, 1), id="squeezed"),
        pytest.param(80, 40, {"do_center_crop": False}, (0, 0, 1, 1), id="not cropped"),
        pytest.param(10, 5, {"do_resize": False}, (-0.5, -1.6, 1.5, 2.4), id="smaller than the crop"),
        pytest.param(80, 40, {"do_pad": True, "pad_to_square": None}, (0, -0.5, 1, 1.5), id="padded to a square"),
        pytest.param(41, 80, {"do_pad": True, "pad_to_square": None}, (-19 / 41, 0, 61 / 41, 1), id="19 before and 20 behind"),
        pytest.param(80, 40, {"do_pad": True}, (0.25, 0, 0.75, 1), id="another processor's do_pad is none of a picture"),
    ],
)
def test_what_a_processor_shows(width: int, height: int, settings: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert of(processed(Canvas.of(width, height), clip(**settings))) == pytest.approx(expected)


def test_a_rule_that_is_not_known_gives_no_area() -> None:
    assert processed(Canvas.of(80, 40), clip(size={"shortest_edge": 20, "longest_edge": 30})) is None


def test_pixels_behind_the_last_whole_patch_are_not_seen() -> None:
    assert edges(Canvas.of(20, 20).covered_by(Grid(6, 6), 3)) == pytest.approx((0, 0, 0.9, 0.9))


def test_squeezed_and_fitted() -> None:
    canvas = Canvas.of(80, 40)
    assert squeezed(canvas, {"shortest_edge": 20}) == Canvas(WHOLE, 20, 20)
    assert squeezed(canvas, {"height": 10, "width": 30}) == Canvas(WHOLE, 30, 10)
    assert of(fitted(canvas, 40, 40)) == pytest.approx((0, -0.5, 1, 1.5))  # 40 x 20 pixels, 10 of padding above and below
    assert of(fitted(canvas, 60, 20)) == pytest.approx((-0.25, 0, 1.25, 1))


@cache
def next_model() -> VisionModel:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return load(make_checkpoint(Path(folder)), shallow_layer=None, window=2)


# 150 x 100 becomes 112 x 75 in 112 x 112, with 18 pixels of padding above and 19 below; un-padding takes a row of 14 of each.
@pytest.mark.parametrize(
    ("width", "height", "base", "stitched"),
    [
        pytest.param(224, 112, (0, 0, 1, 1), (0, 0, 1 + 1 / 8, 1), id="2 x 1 tiles, no padding"),
        pytest.param(112, 112, (0, 0, 1, 1), (0, 0, 1 + 1 / 8, 1), id="2 x 2 tiles"),
        pytest.param(150, 100, (0, 0, 1, 1), (0, -4 / 75, 1 + 1 / 8, 80 / 75), id="some padding is left"),
    ],
)
def test_a_stitched_grid_lies_on_the_picture_without_its_padding(
    width: int, height: int, base: tuple[float, ...], stitched: tuple[float, ...]
) -> None:
    areas = next_model().preprocess(Image.new("RGB", (width, height))).areas
    assert [edges(area) for area in areas if area] == [pytest.approx(base), pytest.approx(stitched)]


def test_a_strip_of_which_nothing_is_left_has_no_area() -> None:
    assert next_model().preprocess(Image.new("RGB", (160, 8))).areas == (WHOLE, None)


def pictures_of(name: str, image: Image.Image) -> tuple[PreparedImage, int]:
    """What the family makes of it, and which of the value's tiles is looked at."""
    if name == "llava":
        return loaded(LLAVA15).preprocess(image), 0
    if name == "qwen":
        return loaded(QWEN).preprocess(image), 0
    if name == "video_llava":
        model = load(shared_video_llava()[0], shallow_layer=None, window=None)
        noise = frames_of_noise(1, *image.size)
        return model.preprocess_video([*noise, image], SampledFrames((0.0, 1.0), 2.0)), 3
    return next_model().preprocess(image), int(name == "next stitched")


@cache
def loaded(folder: Path) -> VisionModel:
    return load(folder, shallow_layer=None, window=None)


def by_token(name: str, prepared: PreparedImage) -> torch.Tensor:
    """[rows, columns, values of a token]: the pixels that each place of the looked-at tile is made of."""
    if name == "qwen":
        (grid,) = prepared.grids
        return prepared.pixels.reshape(grid.rows, grid.columns, -1)  # the processor's order: token after token
    patches = prepared.pixels.unfold(2, 14, 14).unfold(3, 14, 14)  # [tiles, 3, rows, columns, 14, 14]
    tokens = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
    if isinstance(prepared, AnyresImage) and name == "next stitched":
        return tokens[1:].flatten(0, 2)[prepared.places]
    return tokens[-1] if name == "video_llava" else tokens[0]


@pytest.mark.parametrize("size", [(900, 600), (500, 800), (700, 700)])
@pytest.mark.parametrize("name", ["llava", "next base", "next stitched", "qwen", "video_llava"])
def test_what_is_painted_into_a_tokens_rectangle_is_seen_by_that_token_alone(name: str, size: tuple[int, int]) -> None:
    width, height = size
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    prepared, tile = pictures_of(name, Image.fromarray(noise))
    before = by_token(name, prepared)
    rows, columns = before.shape[:2]
    area = prepared.areas[tile]
    assert area is not None
    across = (area.right - area.left) / (columns + (name == "next stitched"))
    down = (area.bottom - area.top) / rows
    for row, column in [(0, 0), (rows // 2, columns - 1), (rows - 1, columns // 3)]:
        # The middle of the rectangle: resizing reaches a little way over each edge.
        left, right = ((area.left + (column + part) * across) * width for part in (0.3, 0.7))
        top, bottom = ((area.top + (row + part) * down) * height for part in (0.3, 0.7))
        painted = noise.copy()
        box = (slice(max(0, math.ceil(top)), math.floor(bottom)), slice(max(0, math.ceil(left)), math.floor(right)))
        painted[box] = 255 - painted[box]
        after = by_token(name, pictures_of(name, Image.fromarray(painted))[0])
        changed = (after - before).abs().amax(dim=2) > 0.02
        assert changed.nonzero().tolist() == [[row, column]]
