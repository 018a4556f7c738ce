"""Encoder processes for benchmarks, side by side, and what they count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.encoder import EncoderProcess, encode_request, encoder_channel, encoder_stub
from tests.support.encoder_metrics import images_encoded
from tests.support.redis_server import free_port
from vscan.cache.place import Place


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: which image, where its tokens were found, and how long the client waited."""

    image: int
    place: Place
    latency_ms: float


class EncoderFleet:
    """Encoders with the same settings, each on one thread."""

    def __init__(self, folder: Path, count: int, **settings: Any) -> None:
        self._metrics_ports = [free_port() for _ in range(count)]
        self._processes = [
            EncoderProcess(_made(folder / f"encoder-{n}"), **settings, metrics_bind=f"127.0.0.1:{port}", drain_seconds=0)
            for n, port in enumerate(self._metrics_ports)
        ]

    def start(self) -> None:
        """Starts all at once and waits until they serve."""
        self._all(EncoderProcess.start)

    def stop(self) -> None:
        """Ends all."""
        self._all(EncoderProcess.stop)

    def images_encoded(self) -> int:
        """Images that went through the vision transformers so far, as the encoders' metrics say."""
        return sum(images_encoded(port) for port in self._metrics_ports)

    async def ask_all(self, images: Sequence[bytes], stream: Sequence[int], clients: int) -> list[Asked]:
        """Sends the stream's images, in order, by so many clients at a time, to the encoders in turn."""
        queries = iter(enumerate(stream))
        async with self._stubs() as stubs:
            asked = await asyncio.gather(*(_client(stubs, images, queries) for _ in range(clients)))
        return [each for some in asked for each in some]

    @asynccontextmanager
    async def _stubs(self) -> AsyncIterator[list[Any]]:
        async with AsyncExitStack() as stack:
            yield [encoder_stub(await stack.enter_async_context(encoder_channel(p.address))) for p in self._processes]

    def _all(self, what: Any) -> None:
        with ThreadPoolExecutor(len(self._processes)) as threads:
            list(threads.map(what, self._processes))


@contextmanager
def running(fleet: EncoderFleet) -> Iterator[EncoderFleet]:
    """Starts it, and stops it in any case."""
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


async def _client(stubs: Sequence[Any], images: Sequence[bytes], queries: Iterator[tuple[int, int]]) -> list[Asked]:
    asked = []
    for number, image in queries:
        began = time.perf_counter()
        reply = await stubs[number % len(stubs)].Encode(encode_request(images[image]), timeout=600)
        asked.append(Asked(image, Place(reply.report.place), (time.perf_counter() - began) * 1000))
    return asked


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
