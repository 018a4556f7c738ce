"""What the studies are shown of each family's layers is what transformers' own eager attention computes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    VideoLlavaForConditionalGeneration,
)
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.vision_utils import get_vision_window_index

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import Attending
from studies.inputs import Inputs, Picture
from studies.loading import Model, open_model
from studies.study import Task
from studies.vision.attending import uniform_reach, weights_from
from studies.vision.distances import measure
from studies.vision.patch_maps import patch_maps
from studies.vision.tile_maps import look, maps_of
from tests.support.encoder import LLAVA15, PARITY
from tests.support.llava_next import make_checkpoint, png
from tests.support.qwen import image_processor, noise, shared_qwen
from tests.support.video_llava import shared_video_llava
from tests.support.videos import video as video_file


def picture(data: bytes, *, is_video: bool = False) -> Picture:
    return Picture("picture", lambda: data, is_video)


def attention_of(model: Model, given: Picture) -> dict[tuple[int, int], torch.Tensor]:
    """Whole matrices, mean over heads, by tile and layer; rows and columns are patches, what goes to [CLS] is left out."""
    seen = model.vision.see(given)
    found: dict[tuple[int, int], torch.Tensor] = {}

    def show(attending: Attending) -> None:
        patches = seen.patches[attending.tile].tokens
        rows = torch.stack([weights_from(attending, patch, patches) for patch in range(patches)])
        at = attending.tile, attending.layer
        found[at] = found.get(at, 0) + rows

    model.vision.observe(seen, show)
    return found


@torch.inference_mode()
def theirs_of_clip(tower: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """[tiles, rows, rows] of each layer, mean over heads, with [CLS]."""
    return [weights.mean(dim=1) for weights in tower(pixels, output_attentions=True).attentions]


def check_clip(model: Model, given: Picture, theirs: list[torch.Tensor], served: int) -> None:
    ours = attention_of(model, given)
    assert {layer for _, layer in ours} == set(range(served))
    tiles = {tile for tile, _ in ours}
    assert tiles == set(range(len(theirs[0])))
    for (tile, layer), weights in ours.items():
        torch.testing.assert_close(weights.double(), theirs[layer][tile, 1:, 1:].double(), rtol=1e-3, atol=1e-5)
    for maps in maps_of(model.vision, given):
        for layer in range(served):
            row = theirs[layer][maps.tile.index, 0, 1:]
            torch.testing.assert_close(
                torch.from_numpy(maps.layers[layer]).flatten().double(), row.double(), rtol=1e-3, atol=1e-5
            )


def test_llava() -> None:
    # In float64: the wide weights of this checkpoint amplify float32 rounding.
    model = open_model(LLAVA15, device="cpu")
    model.dtype = torch.float64
    given = picture((PARITY / "sq_a.png").read_bytes())
    reference = LlavaForConditionalGeneration.from_pretrained(LLAVA15, dtype=torch.float64, attn_implementation="eager").eval()
    seen = model.vision.see(given)
    theirs = theirs_of_clip(reference.model.vision_tower, seen.prepared.pixels.double())
    (maps,) = maps_of(model.vision, given)
    assert maps.layers.shape == (7, 24, 24)
    for layer in range(7):
        row = theirs[layer][0, 0, 1:].view(24, 24)
        torch.testing.assert_close(torch.from_numpy(maps.layers[layer]).double(), row, rtol=1e-3, atol=1e-7)
    chosen = patch_maps(model.vision, given, asked=[(3, 20)])
    for layer in range(7):
        row = theirs[layer][0, 1 + 3 * 24 + 20, 1:].view(24, 24)
        torch.testing.assert_close(torch.from_numpy(chosen.maps[layer, 0]).double(), row, rtol=1e-3, atol=1e-7)


def test_tiles_of_llava_next(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path)
    model = open_model(directory, device="cpu")
    given = picture(png(150, 60))
    reference = LlavaNextForConditionalGeneration.from_pretrained(directory, attn_implementation="eager").eval()
    pixels = model.vision.see(given).prepared.pixels
    assert len(pixels) == 4, "the base tile and three parts"
    check_clip(model, given, theirs_of_clip(reference.model.vision_tower, pixels), served=3)
    base, left, middle, right = maps_of(model.vision, given)
    assert base.rated.all()
    assert middle.rated.all()
    assert left.rated.tolist() == [[False, True, True, True]] * 4, "its first column is padding, which the scans leave out"
    assert right.rated.tolist() == [[True, True, True, False]] * 4
    assert left.shares.shape == (3, 12)
    chosen = patch_maps(model.vision, given, 1).chosen
    assert len(chosen) == 3
    assert all(spot.column > 0 for spot in chosen), "no patch of the padding"
    torch.testing.assert_close(torch.from_numpy(left.shares).sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("video", [False, True])
def test_frames_of_video_llava(video: bool) -> None:
    directory, _ = shared_video_llava()
    model = open_model(directory, device="cpu")
    given = picture(video_file("gif", 4) if video else png(60, 60), is_video=video)
    reference = VideoLlavaForConditionalGeneration.from_pretrained(directory, attn_implementation="eager").eval()
    tower = reference.model.video_tower if video else reference.model.image_tower
    seen = model.vision.see(given)
    assert len(seen.tiles) == len(seen.patches) == (4 if video else 1)
    check_clip(model, given, theirs_of_clip(tower, seen.prepared.pixels), served=3)


def raster(rows: int, columns: int, token: int) -> list[int]:
    """The four patches of a token, counted row by row of the picture's patches."""
    down, across = divmod(token, columns)
    return [(2 * down + i) * 2 * columns + 2 * across + j for i in (0, 1) for j in (0, 1)]


@torch.inference_mode()
def test_windows_and_whole_tiles_of_qwen(monkeypatch: pytest.MonkeyPatch) -> None:
    directory, _ = shared_qwen()
    shape = (5, 7)
    image = noise(*shape)
    recorded: list[torch.Tensor] = []
    eager: Callable[..., Any] = modeling_qwen2_5_vl.eager_attention_forward

    def recording(*args: Any, **kwargs: Any) -> Any:
        output, weights = eager(*args, **kwargs)
        recorded.append(weights[0].mean(dim=0))
        return output, weights

    monkeypatch.setattr(modeling_qwen2_5_vl, "eager_attention_forward", recording)
    reference = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, attn_implementation="eager").eval()
    inputs = image_processor(directory)([image], return_tensors="pt")
    visual: Any = reference.model.visual
    visual(inputs.pixel_values, grid_thw=inputs.image_grid_thw)
    order, _ = get_vision_window_index(inputs.image_grid_thw, 2, visual.window_size, visual.patch_size)
    places = torch.tensor([place for token in order.tolist() for place in raster(*shape, token)])

    model = open_model(directory, device="cpu")
    given = picture(as_png(image))
    ours = attention_of(model, given)
    assert sorted(ours) == [(0, layer) for layer in range(4)]
    theirs = iter(recorded)
    for layer in range(4):
        whole = torch.zeros(140, 140)
        first = 0
        while first < 140:
            weights = next(theirs)
            rows = places[first : first + len(weights)]
            whole[rows[:, None], rows[None]] = weights
            first += len(weights)
        assert bool((whole == 0).any()) == (layer in (0, 2)), "two of four blocks attend within windows"
        torch.testing.assert_close(ours[0, layer], whole, rtol=1e-3, atol=1e-6)
        received = whole.mean(dim=0).view(5, 2, 7, 2).sum(dim=(1, 3))
        (maps,) = maps_of(model.vision, given)
        torch.testing.assert_close(torch.from_numpy(maps.layers[layer]), received, rtol=1e-3, atol=1e-6)
        assert maps.layers[layer].sum() == pytest.approx(1, rel=1e-4)


def test_the_received_attention_of_qwen_is_its_score() -> None:
    model = open_model(shared_qwen()[0], device="cpu")
    given = picture(as_png(noise(6, 4)))
    seen, scan = model.vision.see(given), model.vision.model.scan
    with torch.inference_mode():
        scores = model.vision.model.look([seen.prepared]).scores
    (maps,) = maps_of(model.vision, given)
    heads, patches_of_a_token = 2, 4
    for layer, score in ((scan.shallow_layer, scores.shallow), (scan.deep_layer, scores.deep)):
        shown = torch.from_numpy(maps.layers[layer]).flatten() * heads / patches_of_a_token
        torch.testing.assert_close(shown, score, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 4), (3, 9)])
def test_studies_of_a_tower_without_class_token(shape: tuple[int, int]) -> None:
    model = open_model(shared_qwen()[0], device="cpu")
    task = Task(model, Inputs("noise", (picture(as_png(noise(*shape))),)))
    kept, means = look(task, 1)
    assert not kept[0].from_class
    assert "kept_by_cls_percent" not in means
    found = measure(task)
    assert not found.has_class
    assert found.by_head.shape == (4, 2)
    assert (found.in_window <= 1 + 1e-6).all()
    assert "to_cls_percent" not in found.table().columns
    # Windows have 8 x 8 patches.
    assert (found.by_head[[0, 2]] < math.hypot(7, 7)).all()
    assert found.uniform_patches == pytest.approx(uniform_reach(Grid(2 * shape[0], 2 * shape[1]), 8)[0])


def test_the_picture_of_a_tile_is_the_picture() -> None:
    model = open_model(shared_qwen()[0], device="cpu")
    image = noise(5, 7)
    (tile,) = model.vision.see(picture(as_png(image))).tiles
    assert tile.tobytes() == image.tobytes()


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
