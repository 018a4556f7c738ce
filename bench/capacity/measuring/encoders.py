"""An encoder asked over gRPC: passes by the number of tiles, decoding by the size of the image, bytes."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.capacity.curve import Curve
from bench.capacity.measuring.probe import told_ms
from bench.capacity.measuring.questions import SIDE_PIXELS, picture, trimmed
from bench.capacity.services import services
from tests.support.encoder import encode_request, encoder_channel, encoder_stub
from vscan.visual_tokens import VisualTokens

_BATCHES = (1, 2, 4, 8, 16)
_SIDES = (96, SIDE_PIXELS, 672, 1344)
_GATHERS_MS = 500.0  # until all of a batch have come


@dataclass(frozen=True, slots=True)
class EncoderMeasured:
    """What one encoder said."""

    pass_ms: Curve
    preprocess_ms: Curve
    file_bytes: Curve
    reply_bytes: float
    value_bytes: float
    tiles: int
    visual_rows: int
    image_ms: float  # what the probe of its core would have told meanwhile


def measure_encoder(folder: Path, model: Path, rounds: int) -> EncoderMeasured:
    """Batches form because it waits for company."""
    with services(folder, model, decoders=0, encoder={"batch_wait_ms": _GATHERS_MS, "redis_url": ""}) as running:
        return asyncio.run(_measured(running.encoders[0].address, rounds))


async def _measured(address: str, rounds: int) -> EncoderMeasured:
    seeds = itertools.count(1_000_000)
    async with encoder_channel(address) as channel:
        stub = encoder_stub(channel)

        async def encoded(count: int, side: int = SIDE_PIXELS) -> list[Any]:
            files = [picture(next(seeds), side) for _ in range(count)]
            return list(await asyncio.gather(*(stub.Encode(encode_request(file), timeout=600) for file in files)))

        [reply] = await encoded(1)
        value = VisualTokens.from_proto(reply.visual_tokens)
        tiles = len(value.tiles)
        passes: dict[int, list[float]] = {count: [] for count in _BATCHES if count * tiles <= 16}
        sizes: dict[int, list[float]] = {side: [] for side in _SIDES}
        images: list[float] = []
        for _ in range(rounds):  # in turn, so that a slow moment of the machine does not make one size slow
            for count, times in passes.items():
                times.append(_pass_ms(await encoded(count)))
            for side, times in sizes.items():
                times.append(_decode_ms(await encoded(1, side)))
            images += [told_ms(one) for one in await encoded(1)]
    return EncoderMeasured(
        pass_ms=Curve(points=tuple((count * tiles, trimmed(times)) for count, times in passes.items())),
        preprocess_ms=Curve(points=tuple((side * side, trimmed(times)) for side, times in sizes.items())),
        file_bytes=Curve(points=tuple((side * side, len(picture(0, side))) for side in _SIDES)),
        reply_bytes=reply.ByteSize(),
        value_bytes=value.nbytes,
        tiles=tiles,
        visual_rows=value.kept_count,
        image_ms=trimmed(images),
    )


def _pass_ms(replies: list[Any]) -> float:
    """All of one batch say the same."""
    times = {(reply.timings.vit_ms, reply.timings.reduce_ms) for reply in replies}
    if len({vit for vit, _ in times}) != 1:
        raise RuntimeError(f"{len(replies)} images were not one batch: {times}")
    return max(float(vit + reduce) for vit, reduce in times)


def _decode_ms(replies: list[Any]) -> float:
    return float(replies[0].timings.decode_image_ms)
