"""Anyres tiles: cut, reduced alone, stitched and un-padded, as transformers' own model does it."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, get_anyres_image_grid_shape

from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.fingerprint import fingerprint
from encoder_service.reduction.budget import Grid, plan_reduction, plan_tiles
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.vision.base import PreparedImage
from encoder_service.vision.llava_next import AnyresImage, LlavaNextVision, seen_of, stitched_places
from encoder_service.vision.registry import load_vision
from tests.support.llava_next import PINPOINTS, TILE_PIXELS, TILE_TOKENS, Reference, make_checkpoint, png
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError
from vscan.specs import (
    DEFAULT_REDUCTION,
    Budget,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
)
from vscan.visual_tokens import PickedBy, VisualTokens

HIDDEN = 32
GRID = Grid(4, 4)
SIDES = st.integers(1, 400)
LAYOUTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5, unique=True)


def load(directory: Path, **settings: Any) -> LlavaNextVision:
    model = load_vision(Checkpoint.open(directory), dtype=torch.float32, device=torch.device("cpu"), **settings)
    assert isinstance(model, LlavaNextVision)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_checkpoint(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LlavaNextVision:
    return load(checkpoint)


def picture(width: int, height: int) -> Image.Image:
    return Image.open(io.BytesIO(png(width, height)))


def laid_out(layouts: list[tuple[int, int]], width: int, height: int) -> AnyresImage:
    """As `preprocess` does, without pixels, for tiles of 4 x 4 tokens and these layouts to choose from."""
    down, across = get_anyres_image_grid_shape((height, width), pinpoints(layouts), TILE_PIXELS)
    grids = (GRID,) * (1 + down * across)
    places = stitched_places(height, width, pinpoints=pinpoints(layouts), grid=GRID, tile_pixels=TILE_PIXELS)
    return AnyresImage(pixels=torch.empty(0), grids=grids, valid=(None, *seen_of(places, grids[1:])), places=places)


def pinpoints(layouts: list[tuple[int, int]]) -> list[list[int]]:
    return [[down * TILE_PIXELS, across * TILE_PIXELS] for down, across in layouts]


def packed(
    features: torch.Tensor, newline: torch.Tensor, layouts: list[tuple[int, int]], width: int, height: int
) -> torch.Tensor:
    """transformers' own stitching of [tiles, N, hidden]."""
    vision = SimpleNamespace(image_size=TILE_PIXELS, patch_size=14)
    whole = SimpleNamespace(config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=pinpoints(layouts)))
    (made,), _ = LlavaNextModel.pack_image_features(whole, [features], [(height, width)], "default", newline)
    return made  # type: ignore[no-any-return]


def reduced(
    image: AnyresImage, budget: Budget, method: ReductionMethod, seed: int, *, skip_padding: bool
) -> tuple[torch.Tensor, list[ReducedTiles]]:
    """Random tokens of every tile, and what the reduction makes of them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(image.grids), TILE_TOKENS, HIDDEN, generator=generator)
    scores = torch.rand(2, len(image.grids), TILE_TOKENS, generator=generator)
    spec = ReductionSpec(method=method, budget=budget).filled_from(DEFAULT_REDUCTION)
    masks = image.valid if skip_padding and image.valid else [None] * len(tokens)
    tiles = []
    for tile, plan in enumerate(plan_tiles(spec, image.grids, 2, valid=masks)):
        one, mask = slice(tile, tile + 1), masks[tile]
        own = Scores(scores[0, one], scores[1, one])
        tiles.append(reduce_tiles(tokens[one], own, plan, torch.tensor([tile]), None if mask is None else mask[None]))
    return tokens, tiles


@given(layouts=LAYOUTS, width=SIDES, height=SIDES)
@settings(max_examples=60, deadline=None)
def test_whole_tiles_are_packed_as_transformers_packs_them(
    model: LlavaNextVision, layouts: list[tuple[int, int]], width: int, height: int
) -> None:
    image = laid_out(layouts, width, height)
    tokens, tiles = reduced(image, TokensPerTile(TILE_TOKENS), ReductionMethod.NONE, 0, skip_padding=True)
    value = model.assemble(image, tiles)
    assert torch.equal(value.tokens, packed(tokens, model._newline, layouts, width, height))
    assert value.kept_indices.tolist() == list(range(value.unreduced_count))
    assert value.merged_into is not None
    assert torch.equal(value.merged_into, value.kept_indices)


@given(
    layouts=LAYOUTS,
    width=SIDES,
    height=SIDES,
    keep=st.integers(1, TILE_TOKENS),
    method=st.sampled_from(list(ReductionMethod)),
    seed=st.integers(0, 1000),
    skip_padding=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_kept_tokens_are_packed_as_transformers_packs_all(
    model: LlavaNextVision,
    layouts: list[tuple[int, int]],
    width: int,
    height: int,
    keep: int,
    method: ReductionMethod,
    seed: int,
    skip_padding: bool,
) -> None:
    image = laid_out(layouts, width, height)
    _, tiles = reduced(image, TokensPerTile(keep), method, seed, skip_padding=skip_padding)
    value = model.assemble(image, tiles)
    kept = torch.zeros(len(tiles), TILE_TOKENS, 1)
    rows = torch.zeros(len(tiles), TILE_TOKENS, HIDDEN)
    for tile, result in enumerate(tiles):
        kept[tile, result.kept[0]] = 1
        rows[tile, result.kept[0]] = result.tokens[0]
    mask = packed(kept, torch.ones(1), layouts, width, height)[:, 0].bool()
    assert torch.equal(value.kept_indices, mask.nonzero().flatten())
    assert torch.equal(value.tokens, packed(rows, model._newline, layouts, width, height)[mask])
    assert value.unreduced_count == len(mask) == sum(tile.rows * tile.columns for tile in value.tiles)
    newlines = value.kept_indices[value.picked_by == PickedBy.NEWLINE]
    columns = image.places.shape[1] + 1
    assert newlines.tolist() == [TILE_TOKENS + columns * row + columns - 1 for row in range(image.places.shape[0])]
    assert_holds_itself(value)


def assert_holds_itself(value: VisualTokens) -> None:
    if value.merged_into is not None:
        assert torch.equal(value.merged_into[value.kept_indices], torch.arange(value.kept_count))


def patches_of(budget: Budget, seen: list[int]) -> int:
    """What a budget states for tiles of which so much is no padding."""
    match budget:
        case TokensPerTile(count):
            return sum(min(count, tokens) for tokens in seen)
        case TotalTokens(count):
            return min(count, sum(seen))
        case Ratio(fraction):
            return sum(max(1, math.floor(fraction * tokens + 1e-9)) for tokens in seen if tokens)
        case TargetAverage(fraction):
            return patches_of(Ratio(min(1.0, 1.5 * fraction)), seen)


@given(
    layouts=LAYOUTS,
    width=SIDES,
    height=SIDES,
    budget=st.integers(1, TILE_TOKENS).map(TokensPerTile)
    | st.integers(17, 300).map(TotalTokens)
    | st.floats(0.01, 1).map(Ratio)
    | st.floats(0.01, 1).map(TargetAverage),
    method=st.sampled_from([method for method in ReductionMethod if method is not ReductionMethod.NONE]),
    seed=st.integers(0, 1000),
)
@example(layouts=[(2, 2)], width=160, height=8, budget=TotalTokens(40), method=ReductionMethod.VSCAN, seed=0)
@example(layouts=[(3, 1)], width=113, height=9, budget=Ratio(0.29), method=ReductionMethod.VSCAN, seed=0)
@settings(max_examples=200, deadline=None)
def test_budgets_are_kept_to_exactly_and_count_no_padding(
    model: LlavaNextVision,
    layouts: list[tuple[int, int]],
    width: int,
    height: int,
    budget: Budget,
    method: ReductionMethod,
    seed: int,
) -> None:
    image = laid_out(layouts, width, height)
    _, tiles = reduced(image, budget, method, seed, skip_padding=True)
    value = model.assemble(image, tiles)
    assert image.valid is not None
    seen = [TILE_TOKENS if mask is None else int(mask.sum()) for mask in image.valid]
    patches, stated = value.kept_count - image.places.shape[0], patches_of(budget, seen)
    assert patches <= stated if method is ReductionMethod.POOL else patches == stated
    assert value.merged_into is not None, "what is held, is held by what the language model sees"
    newlines = value.merged_into[TILE_TOKENS:].view(-1, image.places.shape[1] + 1)[:, -1]
    assert (value.picked_by[newlines] == PickedBy.NEWLINE).all()
    assert torch.bincount(value.merged_into, minlength=value.kept_count)[newlines].tolist() == [1] * len(newlines)


@pytest.mark.parametrize(("width", "height"), [(150, 60), (50, 131), (9, 10), (500, 310), (160, 8), (56, 56), (113, 97)])
def test_an_image_is_seen_as_transformers_sees_it(checkpoint: Path, model: LlavaNextVision, width: int, height: int) -> None:
    prepared = model.preprocess(picture(width, height))
    plan = plan_reduction(ReductionSpec(method=ReductionMethod.NONE), model.grid, model.scan.window)
    tiles = len(prepared.grids)
    (result,) = DevicePass(model)([TileJob(prepared, (plan,) * tiles, (0,) * tiles, INVALID_SPAN_CONTEXT)])
    (expected,) = Reference(checkpoint).visual_tokens([png(width, height)])
    torch.testing.assert_close(result.value.tokens, expected, rtol=1e-4, atol=1e-4)


def test_images_of_other_layouts_share_a_pass(model: LlavaNextVision) -> None:
    plan = plan_reduction(ReductionSpec(budget=TokensPerTile(5)).filled_from(DEFAULT_REDUCTION), model.grid, 2)
    images: list[PreparedImage] = [model.preprocess(picture(*size)) for size in ((150, 60), (56, 56), (160, 8))]
    jobs = [TileJob(image, (plan,) * len(image.grids), (0,) * len(image.grids), INVALID_SPAN_CONTEXT) for image in images]
    run = DevicePass(model)
    for job, result in zip(jobs, run(jobs), strict=True):
        (alone,) = run([job])
        assert torch.equal(result.value.kept_indices, alone.value.kept_indices)
        torch.testing.assert_close(result.value.tokens, alone.value.tokens, rtol=0, atol=1e-4)


@pytest.mark.parametrize("style", ["hub", "new"])
def test_every_style_of_names_gives_the_same_model(style: str, model: LlavaNextVision, tmp_path: Path) -> None:
    assert fingerprint(load(make_checkpoint(tmp_path, style=style))) == fingerprint(model)


def spoiled(checkpoint: Path, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    return folder, load_file(folder / "model.safetensors")


def test_the_newline_counts_and_must_be_there(checkpoint: Path, model: LlavaNextVision, tmp_path: Path) -> None:
    folder, tensors = spoiled(checkpoint, tmp_path)
    save_file(tensors | {"image_newline": tensors["image_newline"] + 1}, folder / "model.safetensors", {"format": "pt"})
    assert fingerprint(load(folder)) != fingerprint(model)
    save_file(tensors | {"image_newline": torch.zeros(7)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"image_newline is \[7\] where \[32\] is needed"):
        load(folder)
    del tensors["image_newline"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks the tensor image_newline"):
        load(folder)


def test_padding_and_resolutions_count(checkpoint: Path, model: LlavaNextVision, tmp_path: Path) -> None:
    others = [load(checkpoint, skip_padding=False), load(make_checkpoint(tmp_path, pinpoints=PINPOINTS[:3]))]
    assert len({fingerprint(other) for other in (model, *others)}) == 3


@pytest.mark.parametrize(
    ("stated", "problem"), [([[56, 112]], "of config.json and of the image processor differ"), ([[56, 100]], "multiples of 56")]
)
def test_resolutions_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path, stated: object, problem: str) -> None:
    folder, _ = spoiled(checkpoint, tmp_path)
    files = ["config.json"] if "differ" in problem else ["config.json", "preprocessor_config.json"]
    for file in files:
        settings_ = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings_ | {"image_grid_pinpoints": stated}))
    with pytest.raises(CheckpointError, match=problem):
        load(folder)
