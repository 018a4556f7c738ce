"""More new images at once than the queue holds: each is answered or told when to come back; none is lost or encoded twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import grpc
import pytest

from tests.integration.encoder.test_trace import Watched
from tests.support.caches import PATIENT_MS, raw_client
from tests.support.encoder import RunningEncoder, png, running_encoder
from tests.support.qwen import QWEN
from tests.support.redis_server import RedisServer
from tests.support.until import until
from vscan.cache.place import Place
from vscan.errors import ResourceExhausted, VScanError
from vscan.rpc.error_details import error_from_rpc
from vscan.telemetry import names
from vscan.v1 import encoder_pb2

COUNT, PLACES = 200, 32
IMAGES = [png(seed, (56, 56)) for seed in range(6000, 6000 + COUNT)]
# Of this family a small image is few tokens, so that many are soon encoded.
SMALL: dict[str, Any] = {"model": QWEN, "shallow_layer": None, "window": None}
Reply = encoder_pb2.EncodeResponse


class Device:
    """Holds back the passes of an encoder until it is let go, and knows how many images are in the first one."""

    def __init__(self, encoder: RunningEncoder, patch: pytest.MonkeyPatch) -> None:
        batcher: Any = encoder.service._pipeline._batcher
        begin: Callable[[Sequence[Any]], Any] = batcher._begin
        self.go = Event()
        self.in_first_pass = 0

        def held(jobs: Sequence[Any]) -> Any:
            self.in_first_pass = self.in_first_pass or len(jobs)
            self.go.wait()
            return begin(jobs)

        patch.setattr(batcher, "_begin", held)


async def attempt(encoder: RunningEncoder, data: bytes) -> Reply | VScanError:
    try:
        return await encoder.encode(data)
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error)


async def again_until_answered(encoder: RunningEncoder, data: bytes, refused: ResourceExhausted) -> Reply:
    """As a client does: it comes back after the time that it was told."""
    outcome: Reply | VScanError = refused
    while isinstance(outcome, ResourceExhausted):
        assert outcome.retry_delay_ms is not None
        await asyncio.sleep(outcome.retry_delay_ms / 1000)
        outcome = await attempt(encoder, data)
    assert isinstance(outcome, Reply), outcome
    return outcome


async def test_200_new_images_at_once_on_a_queue_of_32(fresh_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    settings = SMALL | {"redis_url": fresh_redis.url, "redis_timeout_ms": PATIENT_MS, "lease_seconds": 600}
    async with running_encoder(watched.telemetry, **settings, max_queue=PLACES) as encoder, raw_client(fresh_redis) as client:
        device = Device(encoder, monkeypatch)
        tasks = [asyncio.create_task(attempt(encoder, data)) for data in IMAGES]
        await until(
            lambda: device.in_first_pass > 0 and sum(task.done() for task in tasks) == COUNT - PLACES - device.in_first_pass,
            what="all refused but those in the queue and in the pass",
        )
        device.go.set()
        outcomes = await asyncio.gather(*tasks)
        refused = {data: one for data, one in zip(IMAGES, outcomes, strict=True) if isinstance(one, ResourceExhausted)}
        replies = [one for one in outcomes if isinstance(one, Reply)]
        assert (len(refused), len(replies)) == (COUNT - PLACES - device.in_first_pass, PLACES + device.in_first_pass)
        assert all(error.retry_delay_ms for error in refused.values())
        replies += await asyncio.gather(*(again_until_answered(encoder, data, one) for data, one in refused.items()))

        assert {reply.report.sha256 for reply in replies} == {hashlib.sha256(data).digest() for data in IMAGES}
        assert {Place(reply.report.place) for reply in replies} == {Place.ENCODED}
        (passes,) = watched.metrics()[names.METRIC_ENCODER_BATCH_IMAGES.name]
        assert passes.sum == COUNT + 1, "each once, and the warm-up"
        assert [each.value for each in watched.metrics()[names.METRIC_ENCODER_WAITING.name]] == [0, 0], "images and videos"
        assert (len(encoder.service.encoder._flights), len(encoder.service._pipeline._images.room)) == (0, 0)
        assert await client.keys("vscan:lease:*") == []
        assert len(await client.keys("vscan:vt:*")) == COUNT
