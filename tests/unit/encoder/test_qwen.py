"""The Qwen2.5-VL vision half against transformers' own, and its scores against the whole matrix of attention weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from encoder_service.fingerprint import fingerprint
from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import VisionModel
from tests.support.qwen import image_processor, make_qwen, noise, rename_tensors, shared_qwen
from tests.support.tile_jobs import reduced
from tests.support.vision import load
from vscan.errors import CheckpointError, InvalidArgument, StartupError
from vscan.specs import Budget, Ratio, TokensPerTile
from vscan.visual_tokens import VisualTokens

SHAPES = [(4, 4), (2, 2), (1, 9), (9, 2), (5, 7), (3, 3), (13, 11)]


@cache
def model() -> VisionModel:
    torch.set_num_threads(1)
    return load(shared_qwen()[0], shallow_layer=None, window=None)


def encode(pictures: Sequence[Image.Image], budget: Budget | None = None) -> list[VisualTokens]:
    """All in one pass."""
    return reduced(model(), [model().preprocess(picture) for picture in pictures], budget)


@torch.inference_mode()
def test_unreduced_tokens_are_those_of_transformers() -> None:
    directory, reference = shared_qwen()
    pictures = [noise(*shape, seed) for seed, shape in enumerate(SHAPES)]
    inputs = image_processor(directory)(pictures, return_tensors="pt")
    expected = reference.get_image_features(inputs.pixel_values, inputs.image_grid_thw).pooler_output
    for value, theirs, (rows, columns) in zip(encode(pictures), expected, SHAPES, strict=True):
        torch.testing.assert_close(value.tokens, theirs, rtol=0, atol=1e-4)
        assert [(tile.rows, tile.columns) for tile in value.tiles] == [(rows, columns)]


def test_pictures_of_one_batch_do_not_see_each_other() -> None:
    pictures = [noise(*shape, seed) for seed, shape in enumerate([*SHAPES, *SHAPES[:3]])]
    for picture, together in zip(pictures, encode(pictures, Ratio(0.4)), strict=True):
        (alone,) = encode([picture], Ratio(0.4))
        assert torch.equal(together.kept_indices, alone.kept_indices)
        assert torch.equal(together.picked_by, alone.picked_by)
        torch.testing.assert_close(together.tokens, alone.tokens, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_budgets_are_exact_on_any_grid(shape: tuple[int, int]) -> None:
    count = shape[0] * shape[1]
    for keep in {1, count // 3 or 1, count - 1, count, count + 50}:
        (value,) = encode([noise(*shape)], TokensPerTile(keep))
        assert value.kept_count == min(keep, count)


@torch.inference_mode()
def test_scores_are_what_tokens_receive_in_the_whole_matrix() -> None:
    pictures = [noise(*shape, seed) for seed, shape in enumerate(SHAPES[:5])]
    seen = model().look([model().preprocess(picture) for picture in pictures])
    shallow, deep = (plain_scores(pictures, block) for block in (1, 3))
    torch.testing.assert_close(seen.scores.shallow.double(), shallow, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.scores.deep.double(), deep, rtol=0, atol=1e-5)


def plain_scores(pictures: Sequence[Image.Image], block: int) -> torch.Tensor:
    """From what transformers' own pass hands to that block's attention, one picture after the other."""
    directory, reference = shared_qwen()
    visual: Any = reference.model.visual
    scores = []
    for picture in pictures:
        inputs = image_processor(directory)([picture], return_tensors="pt")
        given: dict[str, Any] = {}
        attention = visual.blocks[block].attn
        hook = attention.register_forward_pre_hook(
            lambda module, args, kwargs, given=given: given.update(kwargs, hidden=args[0]), with_kwargs=True
        )
        visual(inputs.pixel_values, grid_thw=inputs.image_grid_thw)
        hook.remove()
        hidden = given["hidden"]
        q, k, _ = attention.qkv(hidden).reshape(len(hidden), 3, attention.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = (part.transpose(0, 1).double() for part in apply_rotary_pos_emb_vision(q, k, *given["position_embeddings"]))
        weights = (q @ k.transpose(1, 2) * attention.scaling).softmax(dim=-1)  # [heads, patches, patches]
        received = weights.sum(dim=0).mean(dim=0).view(-1, 4).mean(dim=1)
        order, _ = get_vision_window_index(inputs.image_grid_thw, 2, visual.window_size, visual.patch_size)
        raster = torch.empty_like(received)
        raster[order] = received
        scores.append(raster)
    return torch.cat(scores)


def test_a_picture_is_resized_within_the_limits_of_the_checkpoint() -> None:
    assert model().preprocess(Image.new("RGB", (64, 64))).grids == (Grid(2, 2),)
    assert model().preprocess(Image.new("RGB", (8, 8))).grids == (Grid(2, 2),)  # not under shortest_edge
    assert model().preprocess(Image.new("RGB", (100, 30))).grids == (Grid(1, 4),)
    large = model().preprocess(Image.new("RGB", (4000, 3000))).grids[0]
    assert large.tokens <= model().grid.tokens == 1280
    with pytest.raises(InvalidArgument, match=r"image: 2010 x 10 pixels: absolute aspect ratio"):
        model().preprocess(Image.new("RGB", (2010, 10)))


@pytest.mark.parametrize("style", ["old", "hub", "new"])
def test_every_style_of_files_is_one_encoder(tmp_path: Path, style: str) -> None:
    make_qwen(tmp_path, style=style)
    assert fingerprint(load(tmp_path, shallow_layer=None, window=None)) == fingerprint(model())


def test_defaults_are_those_of_the_release() -> None:
    assert (model().scan.shallow_layer, model().scan.deep_layer, model().scan.window) == (1, 3, 4)


def test_a_block_that_sees_only_windows_cannot_score() -> None:
    with pytest.raises(StartupError, match=r"shallow_layer: 2, limit the blocks that attend to the whole image: 1, 3"):
        load(shared_qwen()[0], shallow_layer=2, window=None)


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    make_qwen(tmp_path)
    rename_tensors(tmp_path, lambda key: "" if "merger" in key else key)
    with pytest.raises(CheckpointError, match="lacks 5 tensors of Qwen2_5_VisionTransformerPretrainedModel"):
        load(tmp_path, shallow_layer=None, window=None)


@pytest.mark.parametrize("style", ["old", "new"])
def test_quantised_weights_are_refused(tmp_path: Path, style: str) -> None:
    make_qwen(tmp_path, style=style)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("visual.blocks.1.attn.qkv.weight"))
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} is stored as F8_E4M3; only weights that are not"):
        load(tmp_path, shallow_layer=None, window=None)


def test_preprocessing_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    make_qwen(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    stated = json.loads(file.read_text())
    file.write_text(json.dumps(stated | {"patch_size": 16}))
    with pytest.raises(CheckpointError, match=r"patches and tokens of \(16, 2, 2\)"):
        load(tmp_path, shallow_layer=None, window=None)
    file.write_text(json.dumps(stated | {"image_processor_type": "CLIPImageProcessor"}))
    with pytest.raises(CheckpointError, match="image processor CLIPImageProcessor is not served"):
        load(tmp_path, shallow_layer=None, window=None)
