"""Encoder processes over one Redis: a new image is encoded once, also when the one encoding it freezes or is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.support.caches import raw_client
from tests.support.encoder import EncoderProcess, encode_request, encoder_channel, encoder_stub, png
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import until_polled
from tests.support.until import until
from vscan.cache.place import Place
from vscan.v1 import encoder_pb2

LEASE_SECONDS = 1.0
LEASES = "vscan:lease:*"


@dataclass(frozen=True)
class Fleet:
    """Three encoders, and one that waits for a second image before it encodes a first, and so holds its lease."""

    quick: Sequence[EncoderProcess]
    holder: EncoderProcess
    redis: RedisServer

    async def leased(self) -> bool:
        """Whether some image is being encoded."""
        async with raw_client(self.redis) as client:
            return bool(await client.keys(LEASES))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with RedisServer() as redis:
        common = {"redis_url": redis.url, "lease_seconds": LEASE_SECONDS, "redis_timeout_ms": 30_000, "drain_seconds": 0}
        folders = [tmp_path_factory.mktemp(f"encoder-{n}") for n in range(4)]
        quick = [EncoderProcess(folder, **common) for folder in folders[:3]]
        holder = EncoderProcess(folders[3], **common, batch_wait_ms=600_000, max_batch_tiles=2)
        everyone = [*quick, holder]
        with ThreadPoolExecutor(len(everyone)) as threads:
            try:
                list(threads.map(EncoderProcess.start, everyone))
                yield Fleet(quick, holder, redis)
            finally:
                list(threads.map(EncoderProcess.stop, everyone))


@asynccontextmanager
async def stubs(processes: Sequence[EncoderProcess]) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        yield [encoder_stub(await stack.enter_async_context(encoder_channel(process.address))) for process in processes]


def ask(stub: Any, data: bytes) -> asyncio.Task[encoder_pb2.EncodeResponse]:
    async def call() -> encoder_pb2.EncodeResponse:
        reply: encoder_pb2.EncodeResponse = await stub.Encode(encode_request(data), timeout=120)
        return reply

    return asyncio.create_task(call())


def places(replies: Sequence[encoder_pb2.EncodeResponse]) -> Counter[Place]:
    return Counter(Place(reply.report.place) for reply in replies)


def one_value(replies: Sequence[encoder_pb2.EncodeResponse]) -> bool:
    return len({reply.visual_tokens.SerializeToString(deterministic=True) for reply in replies}) == 1


async def test_24_requests_at_three_encoders_are_one_pass(fleet: Fleet) -> None:
    async with stubs(fleet.quick) as encoders:
        replies = await asyncio.gather(*(ask(stub, png(1)) for _ in range(8) for stub in encoders))
        assert places(replies)[Place.ENCODED] == 1
        assert one_value(replies)
        again = await asyncio.gather(*(ask(stub, png(1)) for stub in encoders))
        assert places(again) == {Place.MEMORY: 3}
    assert not await fleet.leased()


async def test_many_new_images_at_once_are_one_pass_each(fleet: Fleet) -> None:
    images = [png(seed) for seed in range(10, 18)]
    async with stubs(fleet.quick) as encoders:
        replies = await asyncio.gather(*(ask(stub, data) for data in images for stub in encoders))
    assert places(replies)[Place.ENCODED] == len(images)


async def test_a_frozen_leader_is_replaced_and_writes_nothing_when_it_wakes(fleet: Fleet) -> None:
    async with stubs([fleet.holder]) as (holder,), stubs(fleet.quick) as encoders, raw_client(fleet.redis) as client:
        first = ask(holder, png(2))
        await until(fleet.leased, what="the lease taken")
        before = set(await client.keys("vscan:vt:*"))
        fleet.holder.pause()
        replies = await asyncio.gather(*(ask(stub, png(2)) for stub in encoders))
        assert places(replies)[Place.ENCODED] == 1
        (made,) = set(await client.keys("vscan:vt:*")) - before
        entry = await client.get(made)
        fleet.holder.resume()
        await ask(holder, png(3))  # the company that its batch waits for
        late = await first  # its caller is answered all the same
        assert Place(late.report.place) is Place.ENCODED
        assert await client.get(made) == entry
        assert (await client.ttl(made)) > 0


async def test_a_killed_leader_is_replaced_and_nobody_else_fails(fleet: Fleet) -> None:
    """The last test: the encoder that holds does not come back."""
    async with stubs([fleet.holder]) as (holder,), stubs(fleet.quick) as encoders:
        lost = ask(holder, png(4))
        await until(fleet.leased, what="the lease taken")
        waiting = [ask(stub, png(4)) for _ in range(8) for stub in encoders]
        await until_polled(fleet.redis, 12)
        assert not any(task.done() for task in waiting)
        fleet.holder.kill()
        replies = await asyncio.gather(*waiting)
        assert places(replies)[Place.ENCODED] == 1
        assert places(replies)[Place.SHARED] == len(waiting) - 1
        assert one_value(replies)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await lost
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE  # which a client sends again
