"""A fixed round of questions and of images, when the profile is measured and again later: how fast the machine is meanwhile.

The two cores do not become faster and slower together, so each has a probe of its own.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

from bench.capacity.measuring.questions import picture, question, so_many, trimmed
from bench.capacity.services import Services
from tests.support.encoder import encode_request, encoder_channel, encoder_stub
from vscan_client import AsyncClient

_QUESTIONS, _IMAGES, _WORDS, _TOKENS = 24, 16, 8, 8
_seeds = itertools.count(9_000_000)


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds of the fixed work: of the decoders' core, and of the other one."""

    decoders_ms: float
    others_ms: float


async def probe(services: Services) -> Speed:
    """Questions about an image that the decoder knows, and new images at the encoder, one after the other; trimmed means."""
    return Speed(await _questions(services.addresses[0]), await _images(services.encoders[0].address))


def told_ms(reply: Any) -> float:
    """What an encoder says that an image took it, waits left out."""
    timings = reply.timings
    return float(timings.decode_image_ms + timings.vit_ms + timings.reduce_ms)


async def _questions(address: str) -> float:
    times = []
    async with AsyncClient(server=address) as client:
        image = picture(next(_seeds))
        await client.ask(image, question(0, _WORDS), sampling=so_many(_TOKENS))
        for number in range(_QUESTIONS):
            began = time.perf_counter()
            await client.ask(image, question(1 + number, _WORDS), sampling=so_many(_TOKENS))
            times.append((time.perf_counter() - began) * 1e3)
    return trimmed(times)


async def _images(address: str) -> float:
    async with encoder_channel(address) as channel:
        stub = encoder_stub(channel)
        return trimmed([told_ms(await stub.Encode(encode_request(picture(next(_seeds))), timeout=600)) for _ in range(_IMAGES)])
