"""Encoder processes over one Redis: a new image is encoded once, also when the one encoding it freezes or is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.support.caches import raw_client
from tests.support.encoder import EncoderProcess, encode_request, encoder_channel, encoder_stub, png
from tests.support.encoder_metrics import images_encoded, images_waiting
from tests.support.redis_server import RedisServer, free_port
from tests.support.redis_stats import until_polled
from tests.support.until import until
from vscan.cache.place import Place
from vscan.v1 import encoder_pb2

LEASE_SECONDS = 1.0
HELD = 32  # images that make up a batch of the holder
LEASES = "vscan:lease:*"


@dataclass(frozen=True)
class Fleet:
    """Three encoders, and one that waits for many images before it encodes a first, and so holds its lease."""

    quick: Sequence[EncoderProcess]
    quick_metrics: Sequence[int]  # their ports
    holder: EncoderProcess
    holder_metrics: int
    redis: RedisServer

    @contextmanager
    def quick_passes(self, expected: int) -> Iterator[None]:
        """The quick ones' transformers see so many images meanwhile, as they count themselves."""
        before = sum(map(images_encoded, self.quick_metrics))
        yield
        assert sum(map(images_encoded, self.quick_metrics)) - before == expected

    async def leased(self) -> bool:
        """Whether some image is being encoded."""
        async with raw_client(self.redis) as client:
            return bool(await client.keys(LEASES))

    async def in_a_pass(self) -> bool:
        """Whether the holder has taken all that it was sent into a batch."""
        return await asyncio.to_thread(images_waiting, self.holder_metrics) == 0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with RedisServer() as redis:
        common = {"redis_url": redis.url, "lease_seconds": LEASE_SECONDS, "redis_timeout_ms": 30_000, "drain_seconds": 0}
        folders = [tmp_path_factory.mktemp(f"encoder-{n}") for n in range(4)]
        ports = [free_port() for _ in folders]
        binds = [{"metrics_bind": f"127.0.0.1:{port}"} for port in ports]
        quick = [EncoderProcess(folder, **common, **bind) for folder, bind in zip(folders[:3], binds, strict=False)]
        holder = EncoderProcess(folders[3], **common, **binds[3], batch_wait_ms=600_000, max_batch_tiles=HELD)
        everyone = [*quick, holder]
        with ThreadPoolExecutor(len(everyone)) as threads:
            try:
                list(threads.map(EncoderProcess.start, everyone))
                yield Fleet(quick, ports[:3], holder, ports[3], redis)
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


def company(number: int) -> list[bytes]:
    """The images that a batch of the holder waits for beside a first one."""
    return [png(1000 * number + seed) for seed in range(HELD - 1)]


def places(replies: Sequence[encoder_pb2.EncodeResponse]) -> Counter[Place]:
    return Counter(Place(reply.report.place) for reply in replies)


def one_value(replies: Sequence[encoder_pb2.EncodeResponse]) -> bool:
    return len({reply.visual_tokens.SerializeToString(deterministic=True) for reply in replies}) == 1


async def test_24_requests_at_three_encoders_are_one_pass(fleet: Fleet) -> None:
    async with stubs(fleet.quick) as encoders:
        with fleet.quick_passes(1):
            replies = await asyncio.gather(*(ask(stub, png(1)) for _ in range(8) for stub in encoders))
        assert places(replies)[Place.ENCODED] == 1
        assert one_value(replies)
        with fleet.quick_passes(0):
            again = await asyncio.gather(*(ask(stub, png(1)) for stub in encoders))
        assert places(again) == {Place.MEMORY: 3}
    assert not await fleet.leased()


async def test_many_new_images_at_once_are_one_pass_each(fleet: Fleet) -> None:
    images = [png(seed) for seed in range(10, 18)]
    async with stubs(fleet.quick) as encoders:
        with fleet.quick_passes(len(images)):
            replies = await asyncio.gather(*(ask(stub, data) for data in images for stub in encoders))
    assert places(replies)[Place.ENCODED] == len(images)


async def test_a_frozen_leader_is_replaced_and_writes_nothing_when_it_wakes(fleet: Fleet) -> None:
    async with stubs([fleet.holder]) as (holder,), stubs(fleet.quick) as encoders, raw_client(fleet.redis) as client:
        first = ask(holder, png(2))
        await until(fleet.leased, what="the lease taken")
        before = set(await client.keys("vscan:vt:*"))
        fleet.holder.pause()
        with fleet.quick_passes(1):
            replies = await asyncio.gather(*(ask(stub, png(2)) for stub in encoders))
        assert places(replies)[Place.ENCODED] == 1
        (made,) = set(await client.keys("vscan:vt:*")) - before
        entry = await client.get(made)
        fleet.holder.resume()
        await asyncio.gather(*(ask(holder, data) for data in company(1)))
        late = await first  # its caller is answered all the same
        assert Place(late.report.place) is Place.ENCODED
        assert await client.get(made) == entry
        assert (await client.ttl(made)) > 0


async def test_a_leader_killed_in_its_pass_is_replaced_and_nobody_else_fails(fleet: Fleet) -> None:
    """The last test: the encoder that holds does not come back."""
    async with stubs([fleet.holder]) as (holder,), stubs(fleet.quick) as encoders, raw_client(fleet.redis) as client:
        with fleet.quick_passes(1):
            lost = [ask(holder, png(4))]
            await until(fleet.leased, what="the lease taken")
            waiting = [ask(stub, png(4)) for _ in range(8) for stub in encoders]
            await until_polled(fleet.redis, 12)
            lost += [ask(holder, data) for data in company(2)]
            await until(fleet.in_a_pass, what="the pass begun")
            fleet.holder.kill()
            assert not any(task.done() for task in [*waiting, *lost])
            assert max([await client.pttl(name) for name in await client.keys(LEASES)]) <= 1000 * LEASE_SECONDS
            replies = await asyncio.gather(*waiting)
        assert places(replies)[Place.ENCODED] == 1
        assert places(replies)[Place.SHARED] == len(waiting) - 1
        assert one_value(replies)
        ended = await asyncio.gather(*lost, return_exceptions=True)
    codes = {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)}
    assert codes == {grpc.StatusCode.UNAVAILABLE}  # which a client sends again
    assert len(ended) == HELD
