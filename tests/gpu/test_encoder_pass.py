"""On a CUDA device: the encoder's passes, recorded and not, give what the CPU gives, wait for nothing, and may overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from PIL import Image

from encoder_service.device_pass import DevicePass, PassResult, TileJob
from encoder_service.reduction.budget import plan_tiles
from encoder_service.vision.base import PreparedImage, VisionModel
from encoder_service.vision.registry import load_vision
from tests.support.encoder import PARITY, png, running_encoder
from vscan.checkpoint import Checkpoint
from vscan.specs import DEFAULT_REDUCTION, Ratio, ReductionSpec
from vscan.visual_tokens import VisualTokens

pytestmark = pytest.mark.gpu
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
FAMILIES = ("llava15", "llava_next", "qwen25vl")
USUAL = ReductionSpec(budget=Ratio(1 / 6)).filled_from(DEFAULT_REDUCTION)
SIZES = ((400, 300), (336, 336), (200, 500), (640, 480), (300, 300))


@cache
def model(family: str, device: torch.device = CUDA, dtype: torch.dtype = torch.float32) -> VisionModel:
    checkpoint = Checkpoint.open(PARITY / family)
    shallow = None if family == "qwen25vl" else 5
    return load_vision(
        checkpoint, dtype=dtype, device=device, shallow_layer=shallow, window=None, skip_padding=True, video_max_tokens=None
    )


def image(size: tuple[int, int], seed: int) -> Image.Image:
    noise = torch.randint(0, 255, (size[1] // 8, size[0] // 8, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy()).resize(size)


def job(run: DevicePass, vision: VisionModel, seed: int, spec: ReductionSpec = USUAL) -> TileJob:
    made: PreparedImage = run.staged(vision.preprocess(image(SIZES[seed % len(SIZES)], seed)))
    scan = vision.scan
    plans = plan_tiles(spec, made.grids, scan.window, scan.share, counted=made.counted, valid=made.valid)
    return TileJob(made, plans, tuple(range(len(plans))), INVALID_SPAN_CONTEXT)


def values(results: Sequence[PassResult]) -> list[VisualTokens]:
    return [result.value for result in results]


def assert_same(found: Sequence[VisualTokens], expected: Sequence[VisualTokens], *, share: float, tolerance: float) -> None:
    """At least `share` of what is kept, and of those tokens that were merged of the same ones their elements to `tolerance`."""
    for one, other in zip(found, expected, strict=True):
        ours, theirs = set(one.kept_indices.tolist()), set(other.kept_indices.tolist())
        assert len(ours & theirs) >= share * len(theirs)
        assert one.tiles == other.tiles
        if ours != theirs or one.merged_into is None or other.merged_into is None:
            continue
        moved = (one.merged_into != other.merged_into).nonzero().flatten()
        touched = set(one.merged_into[moved].tolist()) | set(other.merged_into[moved].tolist())
        same = [row for row in range(len(one.tokens)) if row not in touched]
        assert len(same) >= share * len(one.tokens)
        torch.testing.assert_close(one.tokens[same].float(), other.tokens[same].float(), rtol=0, atol=tolerance)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_keeps_what_the_cpu_keeps(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions embed the patches
    here, there = DevicePass(model(family, CPU)), DevicePass(model(family))
    expected = here([job(here, model(family, CPU), seed) for seed in range(4)])
    found = there([job(there, model(family), seed) for seed in range(4)])
    assert_same(values(found), values(expected), share=0.98, tolerance=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llava15", "llava_next"])
def test_recorded_passes_give_what_others_give(family: str, dtype: torch.dtype) -> None:
    vision = model(family, CUDA, dtype)
    plain, recorded = DevicePass(vision, 8), DevicePass(vision, 8)
    recorded.prepare(plan_tiles(USUAL, (vision.grid,), vision.scan.window, vision.scan.share)[0])
    assert recorded._recorded._passes
    for seeds in ((1,), (1, 3), (1, 1), (4, 4, 4), (0, 1, 2, 3)):
        jobs = [job(recorded, vision, seed) for seed in seeds]
        tight = dtype is torch.float32
        assert_same(values(recorded(jobs)), values(plain(jobs)), share=1.0 if tight else 0.9, tolerance=1e-3 if tight else 0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_beginning_a_pass_waits_for_nothing(family: str) -> None:
    vision = model(family, CUDA, torch.bfloat16)
    run = DevicePass(vision, 8)
    run.prepare(plan_tiles(USUAL, (vision.grid,), vision.scan.window, vision.scan.share)[0])
    jobs = [job(run, vision, seed) for seed in range(3)]
    expected = run(jobs)  # and everything is laid out that is laid out once
    with waiting_is_an_error():
        ending = run.begin(jobs)
    assert_same(values(ending()), values(expected), share=0.9, tolerance=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_begun_one_after_the_other_keep_apart(family: str) -> None:
    vision = model(family)
    run = DevicePass(vision, 8)
    run.prepare(plan_tiles(USUAL, (vision.grid,), vision.scan.window, vision.scan.share)[0])
    batches = [[job(run, vision, seed) for seed in range(first, first + 2)] for first in range(6)]
    expected = [values(run(jobs)) for jobs in batches]
    for _ in range(5):
        endings = [run.begin(jobs) for jobs in batches]
        for ending, wanted in zip(endings, expected, strict=True):
            assert_same(values(ending()), wanted, share=1.0, tolerance=1e-3)


def test_times_follow_each_other() -> None:
    vision = model("llava15")
    run = DevicePass(vision)
    (result,) = run([job(run, vision, 1)])
    assert result.vit.start_ns < result.vit.end_ns == result.reduce.start_ns < result.reduce.end_ns
    assert result.vit.ms < 10_000


async def test_a_service_answers_many_at_once() -> None:
    settings: dict[str, Any] = {"device": "cuda", "dtype": "bfloat16", "max_batch_tiles": 8, "cache_memory_bytes": 0}
    async with running_encoder(**settings) as encoder:
        replies = await asyncio.gather(*(encoder.encode(png(seed)) for seed in range(40)))
        assert all(reply.timings.vit_ms > 0 for reply in replies)
        again = await encoder.encode(png(7))
        assert len(again.visual_tokens.tokens.data) == len(replies[7].visual_tokens.tokens.data)
