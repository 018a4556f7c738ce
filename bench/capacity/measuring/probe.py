"""A fixed round of questions, asked when the profile is measured and again later: how fast the machine is meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from bench.capacity.measuring.questions import picture, question, so_many, trimmed
from vscan_client import AsyncClient

_IMAGES, _WORDS, _TOKENS = 12, 8, 8
_seeds = itertools.count(9_000_000)


async def probe_ms(addresses: Sequence[str]) -> float:
    """Milliseconds that a new image and two more questions about it take, one after the other; the trimmed mean."""
    times = []
    async with AsyncClient(server=addresses[0]) as client:
        await client.ask(picture(next(_seeds)), question(0, _WORDS), sampling=so_many(_TOKENS))
        for _ in range(_IMAGES):
            image, began = picture(next(_seeds)), time.perf_counter()
            for number in range(3):
                await client.ask(image, question(1 + number, _WORDS), sampling=so_many(_TOKENS))
            times.append((time.perf_counter() - began) * 1e3)
    return trimmed(times)
