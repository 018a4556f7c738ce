"""An encoder process, asked over gRPC: what a call costs beside its work, and images a second by clients at once."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.encoder.bare import bare_calls_ms
from bench.encoder.setup import Setup
from bench.harness import Check, Report
from encoder_service.config import EncoderSettings
from tests.support.encoder import EncoderProcess, encode_request, encoder_channel, encoder_stub, png
from vscan.tensors import DTYPE_NAMES

_WORK = ("decode_image_ms", "vit_ms", "reduce_ms")
_PARTS = ("queue_ms", "cache_get_ms", "cache_put_ms")
_WARM_IMAGES = 2
_LEAST_IMAGES = 10  # asked for one by one
_seeds = itertools.count(50_000)


@dataclass(frozen=True, slots=True)
class Answered:
    """One new image, encoded."""

    latency_ms: float
    timings: dict[str, float]
    request_bytes: int
    reply_bytes: int

    @property
    def overhead_ms(self) -> float:
        """What is no work on the image."""
        return self.latency_ms - sum(self.timings[name] for name in _WORK)


def measure(setup: Setup, report: Report) -> None:
    """As many clients at once as a pass has images elsewhere; each asks for one new image after the other."""
    with _encoder(setup) as encoder:
        asyncio.run(_measured(setup, encoder.address, report))


async def _measured(setup: Setup, address: str, report: Report) -> None:
    async with encoder_channel(address) as channel:
        stub = encoder_stub(channel)
        await _asked(setup, stub, clients=1, each=_WARM_IMAGES)
        alone, _ = await _asked(setup, stub, clients=1, each=max(_LEAST_IMAGES, setup.rounds))
        speeds = {}
        for clients in setup.batches:
            answered, seconds = await _asked(setup, stub, clients=clients, each=max(2, setup.rounds // clients))
            speeds[clients] = round(len(answered) / seconds, 3)
    report.checks.append(Check("grpc_overhead_ms", statistics.median(one.overhead_ms for one in alone), "<=", 5))
    report.summary["images a second, through gRPC, by clients at once"] = speeds
    bare = await bare_calls_ms(alone[0].reply_bytes, bytes(alone[0].request_bytes), len(alone))
    report.summary["parts of grpc_overhead_ms, medians"] = _parts(alone)
    report.summary["a bare gRPC call with messages of these sizes, ms"] = round(statistics.median(bare), 3)
    report.raw += [{"kind": "through gRPC", "latency_ms": one.latency_ms, **one.timings} for one in alone]


def _parts(alone: list[Answered]) -> dict[str, float]:
    """`queue_ms` holds `batch_wait_ms`, if any; the rest is hashing, putting the value together, and the wire."""
    parts = {name: [one.timings[name] for one in alone] for name in _PARTS}
    parts["rest"] = [one.overhead_ms - sum(one.timings[name] for name in _PARTS) for one in alone]
    medians = {name: round(statistics.median(some), 3) for name, some in parts.items()}
    return {"batch_wait_ms, as set": EncoderSettings.model_fields["batch_wait_ms"].default, **medians}


async def _asked(setup: Setup, stub: Any, *, clients: int, each: int) -> tuple[list[Answered], float]:
    """What each client got, and the seconds until all had everything. Files are drawn before."""
    side = setup.shape.image_side_pixels
    files = [[png(next(_seeds), (side, side)) for _ in range(each)] for _ in range(clients)]
    began = time.perf_counter()
    answered = await asyncio.gather(*(_client(stub, some) for some in files))
    return [one for some in answered for one in some], time.perf_counter() - began


async def _client(stub: Any, files: list[bytes]) -> list[Answered]:
    answered = []
    for file in files:
        began = time.perf_counter()
        reply = await stub.Encode(encode_request(file), timeout=600)
        latency_ms = (time.perf_counter() - began) * 1000
        timings = {name: getattr(reply.timings, name) for name in (*_WORK, *_PARTS)}
        answered.append(Answered(latency_ms, timings, len(file), reply.ByteSize()))
    return answered


@contextmanager
def _encoder(setup: Setup) -> Iterator[EncoderProcess]:
    """With the defaults of the service, but no Redis."""
    settings: dict[str, Any] = {
        "model": setup.folder,
        "device": setup.model.device.type,
        "dtype": DTYPE_NAMES[setup.model.dtype],
        "torch_threads": torch.get_num_threads(),
        "shallow_layer": None,
        "window": None,
    }
    logs = setup.folder / "process"
    logs.mkdir(exist_ok=True)
    with EncoderProcess(logs, **settings) as encoder:
        yield encoder
