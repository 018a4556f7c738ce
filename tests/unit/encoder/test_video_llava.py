"""Video-LLaVA's two towers against transformers' own, and a video's frames against each alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from encoder_service.device_pass import TileJob
from encoder_service.fingerprint import fingerprint
from encoder_service.reduction.budget import plan_reduction
from encoder_service.vision.base import PreparedImage, VisionModel
from tests.support.tile_jobs import one_a_second, reduced
from tests.support.video_llava import FRAME_TOKENS, frames_of_noise, pixel_values, shared_video_llava, write_video_llava
from tests.support.vision import load
from vscan.errors import CheckpointError
from vscan.specs import (
    DEFAULT_REDUCTION,
    FrameCount,
    FrameRate,
    FrameSampling,
    Ratio,
    ReductionSpec,
    TokensPerTile,
    TotalTokens,
)
from vscan.visual_tokens import Area, PickedBy, Tile


@cache
def model() -> VisionModel:
    torch.set_num_threads(1)
    return load(shared_video_llava()[0], shallow_layer=1, window=2)


def video(frames: Sequence[Image.Image]) -> PreparedImage:
    return model().preprocess_video(iter(frames), one_a_second(len(frames)))


@torch.inference_mode()
def expected_video(frames: Sequence[Image.Image]) -> torch.Tensor:
    """[frames, 1 + N, hidden]."""
    directory, reference = shared_video_llava()
    made: torch.Tensor = reference.model.get_video_features(pixel_values(directory, frames)[None]).pooler_output
    return made


@torch.inference_mode()
def expected_image(image: Image.Image) -> torch.Tensor:
    directory, reference = shared_video_llava()
    made: torch.Tensor = reference.model.get_image_features(pixel_values(directory, [image])).pooler_output
    return made[0]


@pytest.mark.parametrize(("count", "width", "height"), [(1, 56, 56), (2, 80, 60), (3, 31, 90), (8, 9, 56)])
def test_a_videos_tokens_are_those_of_transformers(count: int, width: int, height: int) -> None:
    frames = frames_of_noise(count, width, height)
    (value,) = reduced(model(), [video(frames)])
    torch.testing.assert_close(value.tokens, expected_video(frames).flatten(0, 1), rtol=1e-5, atol=1e-5)
    assert [replace(tile, area=None) for tile in value.tiles] == [Tile(1, 1, 1), Tile(4, 4, FRAME_TOKENS)] * count
    assert value.picked_by.tolist() == ([PickedBy.CLASS] + [PickedBy.ALL] * FRAME_TOKENS) * count
    assert value.frames == one_a_second(count)


@pytest.mark.parametrize("max_tiles", [None, 2])
def test_images_and_videos_of_one_batch_get_their_own_tower_in_order(max_tiles: int | None) -> None:
    one, two, three = frames_of_noise(3, seed=1)
    several = [frames_of_noise(count, seed=count) for count in (3, 1, 5)]
    batch = [model().preprocess(one), *map(video, several[:2]), *map(model().preprocess, (two, three)), video(several[2])]
    wanted = [
        expected_image(one),
        *map(expected_video, several[:2]),
        *map(expected_image, (two, three)),
        expected_video(several[2]),
    ]
    for value, theirs in zip(reduced(model(), batch, max_tiles=max_tiles), wanted, strict=True):
        torch.testing.assert_close(value.tokens, theirs.view(-1, theirs.shape[-1]), rtol=1e-5, atol=1e-5)


def test_the_towers_differ() -> None:
    (frame,) = frames_of_noise(1)
    image, one_frame = reduced(model(), [model().preprocess(frame), video([frame])])
    assert image.frames is None
    assert not torch.allclose(image.tokens, one_frame.tokens[1:], atol=0.1)


@pytest.mark.parametrize("budget", [TokensPerTile(5), Ratio(0.5), TokensPerTile(FRAME_TOKENS - 1)])
def test_each_frame_is_reduced_by_itself_and_its_class_token_kept(budget: Any) -> None:
    frames = frames_of_noise(4, seed=3)
    (value,) = reduced(model(), [video(frames)], budget)
    keep = budget.tokens(FRAME_TOKENS)
    whole = FRAME_TOKENS + 1
    assert value.tiles == (Tile(1, 1, 1), Tile(4, 4, keep, Area(9 / 74, 0.0, 65 / 74, 1.0))) * 4  # 74 x 56, cropped to 56 x 56
    assert value.merged_into is not None
    for index, frame in enumerate(frames):
        (alone,) = reduced(model(), [video([frame])], budget)
        rows = slice(index * (keep + 1), (index + 1) * (keep + 1))
        assert torch.equal(value.kept_indices[rows], alone.kept_indices + index * whole)
        torch.testing.assert_close(value.tokens[rows], alone.tokens, rtol=1e-5, atol=1e-5)
        held = value.merged_into[index * whole : (index + 1) * whole] - index * (keep + 1)
        assert held[0] == 0
        assert held[1:].min() > 0, "nothing is merged into a class token"
        assert alone.picked_by[0] == PickedBy.CLASS
        torch.testing.assert_close(alone.tokens[0], expected_video([frame])[0, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.tokens[1:], plainly_reduced(frame, keep), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def plainly_reduced(frame: Image.Image, keep: int) -> torch.Tensor:
    """The definition, from all attention weights of transformers' own tower: half the tokens by window, then the rest."""
    directory, reference = shared_video_llava()
    tower = reference.model.video_tower
    states = tower(pixel_values(directory, [frame]), output_hidden_states=True).hidden_states
    shallow, deep = (class_attention(tower.encoder.layers[layer], states[layer]) for layer in (1, 2))
    share = keep // 2 // 4
    windows = [[4 * row + column for row in (top, top + 1) for column in (left, left + 1)] for top in (0, 2) for left in (0, 2)]
    local = [token for window in windows for token in sorted(window, key=lambda t: -shallow[t])[:share]]
    rest = sorted(set(range(FRAME_TOKENS)) - set(local), key=lambda t: -deep[t])
    kept = sorted(local + rest[: keep - len(local)])
    tokens = expected_video([frame])[0, 1:]
    into = torch.nn.functional.normalize(tokens, dim=-1) @ torch.nn.functional.normalize(tokens[kept], dim=-1).T
    groups = [[token] for token in kept]
    for token in set(range(FRAME_TOKENS)) - set(kept):
        groups[int(into[token].argmax())].append(token)
    return torch.stack([tokens[group].mean(dim=0) for group in groups])


def class_attention(layer: Any, hidden: torch.Tensor) -> list[float]:
    normed = layer.layer_norm1(hidden)[0]
    q, k = (made(normed).view(len(normed), 4, -1).transpose(0, 1) for made in (layer.self_attn.q_proj, layer.self_attn.k_proj))
    weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    scores: list[float] = weights[:, 0, 1:].mean(dim=0).tolist()
    return scores


def test_a_total_is_shared_by_the_frames_alone() -> None:
    (value,) = reduced(model(), [video(frames_of_noise(3))], TotalTokens(8))
    assert [tile.kept_count for tile in value.tiles] == [1, 3, 1, 3, 1, 2]


def test_class_tokens_make_no_tiles_of_a_batch() -> None:
    prepared = video(frames_of_noise(6))
    spec = ReductionSpec(budget=TokensPerTile(4)).filled_from(DEFAULT_REDUCTION)
    plans = tuple(plan_reduction(spec, model().grid, 2) for _ in prepared.grids)
    job = TileJob(prepared, plans, (0,) * len(plans), INVALID_SPAN_CONTEXT)
    assert (job.tiles, job.size) == (6, 6)


def test_frames_are_taken_one_by_one() -> None:
    made: list[int] = []

    def coming() -> Iterator[Image.Image]:
        for index, frame in enumerate(frames_of_noise(3)):
            made.append(index)
            yield frame

    frames = coming()
    next(frames)
    prepared = model().preprocess_video(frames, one_a_second(2))
    assert (len(prepared.pixels), made) == (2, [0, 1, 2])


def test_defaults() -> None:
    assert model().frame_sampling == FrameCount(8)


@pytest.mark.parametrize(("style", "shards"), [("old", 1), ("hub", 3), ("new", 1), ("newest", 2)])
def test_every_style_of_files_is_one_encoder(tmp_path: Path, style: str, shards: int) -> None:
    write_video_llava(tmp_path, style=style, shards=shards)
    assert fingerprint(load(tmp_path, shallow_layer=1, window=2)) == fingerprint(model())


def test_both_towers_are_needed_and_count(tmp_path: Path) -> None:
    write_video_llava(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "video_tower.vision_model.embeddings.class_embedding"
    save_file(tensors | {name: tensors[name] + 1}, file, metadata={"format": "pt"})
    assert fingerprint(load(tmp_path, shallow_layer=1, window=2)) != fingerprint(model())
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 tensors of video_tower, first embeddings"):
        load(tmp_path, shallow_layer=1, window=2)


@pytest.mark.parametrize("file", ["video_preprocessor_config.json", "processor_config.json"])
def test_videos_may_be_prepared_otherwise_than_images(tmp_path: Path, file: str) -> None:
    write_video_llava(tmp_path)
    stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del stated["image_processor_type"]
    ours = stated | {"image_mean": [0.5, 0.5, 0.5], "video_processor_type": "VideoLlavaVideoProcessor"}
    (tmp_path / file).write_text(json.dumps({"video_processor": ours} if file.startswith("processor") else ours))
    other = load(tmp_path, shallow_layer=1, window=2)
    assert fingerprint(other) != fingerprint(model())
    (frame,) = frames_of_noise(1)
    wanted = CLIPImageProcessorPil(**stated | {"image_mean": [0.5, 0.5, 0.5]})(frame, return_tensors="pt").pixel_values
    assert torch.equal(other.preprocess_video([frame], one_a_second(1)).pixels, wanted)
    assert torch.equal(other.preprocess(frame).pixels, model().preprocess(frame).pixels)


@pytest.mark.parametrize(
    ("stated", "sampling"),
    [
        ({}, FrameCount(8)),
        ({"num_frames": None, "fps": None}, FrameCount(8)),
        ({"num_frames": 16}, FrameCount(16)),
        ({"fps": 1}, FrameRate(1.0)),
        ({"num_frames": 4, "fps": 0.5}, FrameCount(4)),  # as transformers chooses
    ],
)
def test_a_checkpoint_may_state_its_sampling(tmp_path: Path, stated: dict[str, object], sampling: FrameSampling) -> None:
    write_video_llava(tmp_path)
    images = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del images["image_processor_type"]
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(images | stated))
    assert load(tmp_path, shallow_layer=1, window=2).frame_sampling == sampling


@pytest.mark.parametrize("stated", [{"num_frames": 0}, {"num_frames": 2.5}, {"fps": "fast"}, {"fps": 0}, {"fps": [2]}])
def test_a_sampling_that_is_none_is_refused(tmp_path: Path, stated: dict[str, object]) -> None:
    write_video_llava(tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match="its settings for videos cannot be used"):
        load(tmp_path, shallow_layer=1, window=2)


def test_preprocessing_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_video_llava(tmp_path)
    stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
    file = tmp_path / "video_preprocessor_config.json"
    file.write_text(json.dumps(stated | {"crop_size": {"height": 28, "width": 28}}))
    with pytest.raises(CheckpointError, match=r"preprocessing makes \(1, 3, 28, 28\), the vision tower wants \(1, 3, 56, 56\)"):
        load(tmp_path, shallow_layer=1, window=2)
    file.write_text(json.dumps(stated | {"video_processor_type": "LlavaOnevisionVideoProcessor"}))
    with pytest.raises(CheckpointError, match="video processor LlavaOnevisionVideoProcessor is not served"):
        load(tmp_path, shallow_layer=1, window=2)
