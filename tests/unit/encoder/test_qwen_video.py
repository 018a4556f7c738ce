"""Qwen2.5-VL's videos: pixels in the documented layout, tokens those of transformers' own tower, tile by tile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from encoder_service.fingerprint import fingerprint
from encoder_service.reduction.budget import Grid
from encoder_service.vision.areas import WHOLE
from encoder_service.vision.base import PreparedImage, VisionModel
from tests.support.qwen import make_qwen, noise, shared_qwen
from tests.support.tile_jobs import one_a_second, reduced
from tests.support.video_llava import frames_of_noise
from tests.support.vision import load
from vscan.errors import CheckpointError, InvalidArgument
from vscan.specs import FrameCount, FrameRate, Ratio
from vscan.visual_tokens import PickedBy, Tile

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Frames, width and height in pixels; the grid of tokens that they are resized to.
VIDEOS = [(1, 56, 56, (2, 2)), (2, 112, 56, (2, 4)), (3, 100, 150, (5, 4)), (6, 250, 84, (3, 9)), (5, 20, 30, (3, 2))]


@cache
def model() -> VisionModel:
    torch.set_num_threads(1)
    return load(shared_qwen()[0], shallow_layer=None, window=None)


def video(frames: Sequence[Image.Image], encoder: VisionModel | None = None) -> PreparedImage:
    return (encoder or model()).preprocess_video(iter(frames), one_a_second(len(frames)))


def laid_out(
    frames: Sequence[Image.Image], *, least: int = 56 * 56, most: int = 28 * 28 * 1280
) -> tuple[torch.Tensor, list[int]]:
    """As transformers documents it: patches of 2 frames x 14 x 14 pixels, the 2 x 2 of a token together; and their grid."""
    height, width = smart_resize(frames[0].height, frames[0].width, min_pixels=least, max_pixels=most)
    resized = [np.asarray(frame.resize((width, height), Image.Resampling.BICUBIC), np.float32) for frame in frames]
    pixels = (np.stack(resized + resized[-1:] * (len(resized) % 2)) / 255 - MEAN) / DEVIATION  # [frames, height, width, 3]
    pairs, rows, columns = len(pixels) // 2, height // 14, width // 14
    parts = pixels.transpose(0, 3, 1, 2).reshape(pairs, 2, 3, rows // 2, 2, 14, columns // 2, 2, 14)
    patches = parts.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(pairs * rows * columns, -1)
    return torch.from_numpy(patches).float(), [pairs, rows, columns]


@pytest.mark.parametrize(("count", "width", "height", "grid"), VIDEOS)
def test_pixels_and_tokens_are_those_of_transformers(count: int, width: int, height: int, grid: tuple[int, int]) -> None:
    frames = frames_of_noise(count, width, height)
    prepared = video(frames)
    pixels, thw = laid_out(frames)
    torch.testing.assert_close(prepared.pixels, pixels, rtol=1e-5, atol=1e-5)
    assert prepared.grids == (Grid(*grid),) * thw[0]
    assert thw == [-(-count // 2), 2 * grid[0], 2 * grid[1]]
    (value,) = reduced(model(), [prepared])
    with torch.inference_mode():
        (theirs,) = shared_qwen()[1].get_video_features(pixels, torch.tensor([thw])).pooler_output
    torch.testing.assert_close(value.tokens, theirs, rtol=1e-5, atol=1e-5)
    assert value.tiles == (Tile(*grid, grid[0] * grid[1], WHOLE),) * thw[0]
    assert value.frames == one_a_second(count)


# How many tokens a video may have; its frames, their width and height; their grid of tokens.
TOTALS = [(24_576, 6, 250, 84, (3, 9)), (81, 6, 250, 84, (3, 9)), (80, 6, 250, 84, (2, 8)), (90, 4, 400, 300, (5, 7))]


@pytest.mark.parametrize(("total", "count", "width", "height", "grid"), TOTALS)
def test_frames_of_a_video_of_too_many_tokens_are_smaller(
    total: int, count: int, width: int, height: int, grid: tuple[int, int]
) -> None:
    """Each has the pixels that transformers' `cap_pixels_per_frame` leaves it."""
    frames = frames_of_noise(count, width, height)
    encoder = load(shared_qwen()[0], shallow_layer=None, window=None, video_max_tokens=total)
    most = max(min(28 * 28 * 1280, total * 28 * 28 * 2 // count), int(1.05 * 56 * 56))
    prepared = video(frames, encoder)
    torch.testing.assert_close(prepared.pixels, laid_out(frames, most=most)[0], rtol=1e-5, atol=1e-5)
    assert prepared.grids == (Grid(*grid),) * (count // 2)
    assert sum(tile.tokens for tile in prepared.grids) <= total
    assert encoder.preprocess(frames[0]).grids == model().preprocess(frames[0]).grids, "an image is no part of a video"
    assert fingerprint(encoder) != fingerprint(model())


def test_the_repeated_frame_of_an_odd_video_is_counted() -> None:
    encoder = load(shared_qwen()[0], shallow_layer=None, window=None, video_max_tokens=50)
    assert video(frames_of_noise(3, 300, 300), encoder).grids == (Grid(5, 5),) * 2


def test_a_video_whose_frames_cannot_be_small_enough_is_refused_before_all_are_taken() -> None:
    encoder = load(shared_qwen()[0], shallow_layer=None, window=None, video_max_tokens=11)
    frames = iter(frames_of_noise(6, 300, 300))
    with pytest.raises(InvalidArgument, match=r"^video: 12 tokens of 6 frames, limit 11 tokens$"):
        encoder.preprocess_video(frames, one_a_second(6))
    assert len(list(frames)) == 4


@pytest.mark.parametrize("max_tiles", [None, 1, 2])
def test_each_tile_of_a_batch_is_reduced_by_itself(max_tiles: int | None) -> None:
    frames, others = frames_of_noise(5, 250, 140, seed=1), frames_of_noise(2, 84, 84, seed=2)
    batch = [video(frames), model().preprocess(noise(5, 9)), video(others)]
    values = reduced(model(), batch, Ratio(0.4), max_tiles=max_tiles)
    alone = [reduced(model(), [video(pair)], Ratio(0.4))[0] for pair in (frames[:2], frames[2:4], frames[4:])]
    tokens, keep = 45, 18
    for index, tile in enumerate(alone):
        rows, places = slice(keep * index, keep * (index + 1)), slice(tokens * index, tokens * (index + 1))
        assert torch.equal(values[0].kept_indices[rows], tile.kept_indices + tokens * index)
        torch.testing.assert_close(values[0].tokens[rows], tile.tokens, rtol=0, atol=1e-5)
        assert values[0].merged_into is not None
        assert tile.merged_into is not None
        assert torch.equal(values[0].merged_into[places], tile.merged_into + keep * index)
    assert set(values[0].picked_by.tolist()) == {PickedBy.LOCAL, PickedBy.GLOBAL}
    for prepared, value in zip(batch[1:], values[1:], strict=True):
        (single,) = reduced(model(), [prepared], Ratio(0.4))
        assert torch.equal(value.kept_indices, single.kept_indices)
        torch.testing.assert_close(value.tokens, single.tokens, rtol=0, atol=1e-5)


def test_two_equal_frames_are_an_image() -> None:
    picture = noise(5, 7)
    image, still = reduced(model(), [model().preprocess(picture), video([picture, picture])], Ratio(0.3))
    assert torch.equal(image.kept_indices, still.kept_indices)
    assert torch.equal(image.tokens, still.tokens)
    assert image.frames is None


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_no_more_than_a_pair_is_held(count: int) -> None:
    """Each frame is asked for after the pair before it has become patches."""
    taken: list[int] = []
    frames = frames_of_noise(count, 56, 56)

    def processed(*args: Any, **kwargs: Any) -> Any:
        done.append(len(taken))
        return processor(*args, **kwargs)

    done: list[int] = []
    encoder: Any = load(shared_qwen()[0], shallow_layer=None, window=None)
    processor, encoder._frame_processor = encoder._frame_processor, processed
    encoder.preprocess_video((taken.append(i) or frame for i, frame in enumerate(frames)), one_a_second(count))  # type: ignore[func-returns-value]
    assert done == [min(2 * (index // 2) + 2, count) for index in range(count)]


def test_frames_of_different_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="video: frames of different sizes"):
        video([noise(2, 3), noise(3, 2)])
    with pytest.raises(InvalidArgument, match=r"video: 2010 x 10 pixels: absolute aspect ratio"):
        video([Image.new("RGB", (2010, 10))])


@given(
    duration=st.fractions(0, 600, max_denominator=90_000),
    available=st.integers(1, 2000),
    rate=st.floats(0.01, 1000, allow_nan=False),
    most=st.integers(1, 768),
)
@settings(max_examples=200, deadline=None)
def test_a_rate_gives_as_many_frames_as_transformers(duration: Fraction, available: int, rate: float, most: int) -> None:
    asked = duration * Fraction(repr(rate))
    wanted = min(max(asked, Fraction(4)), Fraction(min(most, available) // 2 * 2)) // 2 * 2
    assert model().frames_of(duration, available, FrameRate(rate), most) == (wanted or 1)


def test_a_count_is_taken_as_it_is() -> None:
    assert [model().frames_of(Fraction(9), 7, FrameCount(count), 6) for count in (1, 3, 6, 7, 90)] == [1, 3, 6, 6, 6]
    assert model().frame_sampling == FrameRate(2.0)


def test_videos_may_have_limits_of_their_own(tmp_path: Path) -> None:
    make_qwen(tmp_path)
    frames = frames_of_noise(2, 300, 200)
    before = fingerprint(load(tmp_path, shallow_layer=None, window=None))
    stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
    ours = stated | {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "size": {"shortest_edge": 784, "longest_edge": 30 * 784},
        "fps": 1,
    }
    del ours["image_processor_type"]
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(ours))
    encoder = load(tmp_path, shallow_layer=None, window=None)
    assert fingerprint(encoder) != before
    assert encoder.frame_sampling == FrameRate(1.0)
    torch.testing.assert_close(video(frames, encoder).pixels, laid_out(frames, most=30 * 784)[0], rtol=1e-5, atol=1e-5)
    assert encoder.preprocess(frames[0]).grids == (Grid(7, 11),)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(ours | {"temporal_patch_size": 4}))
    with pytest.raises(CheckpointError, match=r"patches and tokens of \(14, 4, 2\)"):
        load(tmp_path, shallow_layer=None, window=None)
