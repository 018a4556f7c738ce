"""What listens where Redis should be, and answers something else: a fault of Redis, and of no request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.caches import cache_settings
from tests.support.replicas import Replica
from tests.support.visual_values import key
from vscan.cache.recorder import CountingRecorder
from vscan.cache.tiers import TieredCache

ANSWERS = {
    "a number": b":7\r\n",
    "a word": b"+OK\r\n",
    "nothing": b"$-1\r\n",
    "an error": b"-ERR no\r\n",
    "an empty list": b"*0\r\n",
    "a list of a number": b"*1\r\n:5\r\n",
    "a list of a list": b"*1\r\n*1\r\n$1\r\nx\r\n",
    "a list that is too long": b"*2\r\n$-1\r\n$-1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[str]:
    """A server that says the same to everything; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(65_536):
            writer.write(answer * len(re.findall(rb"^\*\d+\r$", asked, re.MULTILINE)))  # to each command
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("answer", ANSWERS)
async def test_nonsense_is_no_answer(answer: str) -> None:
    counts = CountingRecorder()
    async with listening(ANSWERS[answer]) as url:
        cache = TieredCache.from_settings(cache_settings(url, cache_memory_bytes=0, redis_timeout_ms=5000), recorder=counts)
        one = Replica(cache, counts, lease_seconds=0.1)
        for _ in range(2):
            turn = await one.find_or_make(key("nonsense"))
            assert turn.hit is None
        await cache.locate_many([key("nonsense"), key("other")])
        await cache.aclose()
    assert one.made == 2
