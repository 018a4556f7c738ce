"""The pipeline between admission and the device: who holds what, and that closing answers everybody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest
from PIL import Image

from encoder_service.config import EncoderSettings
from encoder_service.media import Media
from encoder_service.pipeline import Encoded, Pipeline, PipelineBounds
from encoder_service.vision.base import PreparedImage, VisionModel
from tests.support.until import until
from tests.support.vision import shared_model
from vscan.errors import ResourceExhausted, Unavailable
from vscan.specs import DEFAULT_REDUCTION, ReductionSpec
from vscan.telemetry.metrics import EncoderMetrics
from vscan.telemetry.providers import Telemetry

USUAL = ReductionSpec().filled_from(DEFAULT_REDUCTION)


@dataclass(eq=False)
class Held:
    """An image that is decoded for as long as `gate` is closed."""

    is_video: ClassVar[bool] = False
    size_bytes: ClassVar[int] = 1
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def prepare(self, model: VisionModel, *_: Any) -> PreparedImage:
        self.begun.set()
        assert self.gate.wait(60)
        return model.preprocess(Image.new("RGB", (64, 64)))


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[Pipeline]:
    bounds = {"max_queue": 8, "max_queue_bytes": 2**24, "max_batch_tiles": 4, "batch_wait_ms": 0.0, "image_workers": 1}
    settings, telemetry = EncoderSettings(), Telemetry()
    pipeline = Pipeline(
        shared_model(),
        settings.media_limits,
        PipelineBounds(**{**bounds, "video_workers": 1, **changes}),
        tracer=telemetry.tracer,
        metrics=EncoderMetrics(telemetry.meter),
    )
    await pipeline.start(USUAL, lambda why: None)
    try:
        yield pipeline
    finally:
        await pipeline.aclose()


def asked(pipeline: Pipeline, media: Held) -> asyncio.Task[Encoded]:
    return asyncio.create_task(pipeline.encode(cast(Media, media), bytes(32), USUAL))


async def test_closing_answers_those_who_are_decoded_and_those_who_wait_for_that() -> None:
    media = [Held() for _ in range(4)]
    async with running() as pipeline:
        tasks = [asked(pipeline, one) for one in media]
        await until(media[0].begun.is_set)
        closing = asyncio.create_task(pipeline.aclose())
        await until(lambda: pipeline._batcher._ended is not None)
        for one in media:
            one.gate.set()
        await closing
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
    assert not any(one.begun.is_set() for one in media[1:])


async def test_time_that_two_passes_share_counts_once() -> None:
    async with running() as pipeline:
        began_s = time.perf_counter()
        passes_ms = [pipeline._pass_ms(began_s) for _ in range(3)]  # all of them begun before the first one ended
        assert sum(passes_ms) <= (time.perf_counter() - began_s) * 1e3
        assert min(passes_ms) > 0


async def test_whoever_goes_while_it_is_decoded_keeps_its_place_until_its_thread_is_free() -> None:
    gone, late, stays = Held(), Held(), Held()
    async with running(max_queue=1) as pipeline:
        task = asked(pipeline, gone)
        await until(gone.begun.is_set)
        task.cancel()
        with pytest.raises(ResourceExhausted):
            await asked(pipeline, late)
        gone.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        stays.gate.set()
        assert (await asked(pipeline, stays)).value.kept_count > 0
    assert not late.begun.is_set()
