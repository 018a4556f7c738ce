"""Encoders over one Redis that ask for one new image at once: however the one that encodes it ends, the others are answered.

No lease here expires while a test runs: who waits for one that was not given back waits until the test fails.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from encoder_service.media import ImageFile
from tests.integration.encoder.test_trace import Watched
from tests.support.caches import PATIENT_MS, raw_client
from tests.support.encoder import RunningEncoder, encode_request, png, running_encoder
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import scripts_run, until_polled
from tests.support.until import until
from vscan.cache.place import Place
from vscan.cache.recorder import LeaseOutcome
from vscan.errors import InvalidArgument, MissingImages, ResourceExhausted, Unavailable
from vscan.specs import ReductionSpec
from vscan.telemetry import names
from vscan.v1 import encoder_pb2

LEASES = "vscan:lease:*"
HOLDS: dict[str, Any] = {"batch_wait_ms": 3_600_000, "max_batch_tiles": 2}  # waits for a second image before it encodes a first


@dataclass(frozen=True)
class Member:
    """An encoder, and what it counts."""

    encoder: RunningEncoder
    watched: Watched

    @property
    def passes(self) -> int:
        """Images that went through its transformer, its warm-up's aside."""
        (images,) = self.watched.metrics()[names.METRIC_ENCODER_BATCH_IMAGES.name]
        return int(images.sum) - 1

    @property
    def leftovers(self) -> tuple[int, int]:
        """Flights and places that somebody holds."""
        service = self.encoder.service
        return len(service.encoder._flights), len(service._pipeline._images.room)

    @property
    def turns(self) -> Counter[str]:
        """How its turns came out, by its metrics."""
        points = self.watched.metrics().get(names.METRIC_CACHE_LEASES.name, [])
        return Counter({str(point.attributes[names.ATTR_LEASE_OUTCOME]): int(point.value) for point in points})

    @property
    def waiters(self) -> int:
        """Calls that wait for a flight."""
        return sum(flight.waiters for flight in self.encoder.service.encoder._flights._flights.values())

    def ask(self, data: bytes) -> asyncio.Task[encoder_pb2.EncodeResponse]:
        """Asks for an image, in a call that can be cancelled."""
        return asyncio.create_task(self.encoder.encode(data))


@asynccontextmanager
async def fleet(redis: RedisServer, *settings: dict[str, Any]) -> AsyncIterator[list[Member]]:
    """An encoder for each of the settings. At the end nothing is left of what they did."""
    common = {"redis_url": redis.url, "redis_timeout_ms": PATIENT_MS, "lease_seconds": 600, "drain_seconds": 0}
    async with AsyncExitStack() as stack, raw_client(redis) as client:
        members = []
        for each in settings:
            watched = Watched()
            members.append(
                Member(await stack.enter_async_context(running_encoder(watched.telemetry, **common | each)), watched)
            )
        yield members
        await until(lambda: all(member.leftovers == (0, 0) for member in members), what="no flight and no place left")
        assert await client.keys(LEASES) == []


async def leased(redis: RedisServer) -> None:
    """Until some image is being encoded."""
    async with raw_client(redis) as client:

        async def taken() -> bool:
            return bool(await client.keys(LEASES))

        await until(taken, what="the lease taken")


def places(replies: Sequence[encoder_pb2.EncodeResponse]) -> list[Place]:
    return sorted(Place(reply.report.place) for reply in replies)


@pytest.mark.parametrize("how", ["its caller leaves", "it is told to stop"])
async def test_a_leader_that_ends_lets_the_next_one_lead(fresh_redis: RedisServer, how: str) -> None:
    async with fleet(fresh_redis, HOLDS, {}, {}) as (leader, one, other):
        first = leader.ask(png(5000))
        await leased(fresh_redis)
        waiting = [member.ask(png(5000)) for member in (one, other) for _ in range(4)]
        await until_polled(fresh_redis)
        if how == "its caller leaves":
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        else:
            await leader.encoder.service.stop()
            assert isinstance(await leader.encoder.refusal(first), Unavailable)
        replies = await asyncio.gather(*waiting)
        assert places(replies) == [Place.ENCODED] + [Place.SHARED] * 7
        assert [member.passes for member in (leader, one, other)] in ([0, 1, 0], [0, 0, 1])
        assert leader.turns == {LeaseOutcome.LED: 1}
        assert one.turns + other.turns == {LeaseOutcome.TAKEN_OVER: 1, LeaseOutcome.WAITED: 1}


async def test_until_it_is_encoded_its_digest_is_unknown(fresh_redis: RedisServer) -> None:
    """At the one that encodes it, too: whoever has the bytes may send them and share the encoding."""
    request = encode_request(b"")
    request.image.sha256 = hashlib.sha256(png(5010)).digest()
    async with fleet(fresh_redis, HOLDS, {}) as members:
        first = members[0].ask(png(5010))
        await leased(fresh_redis)
        for member in members:
            error = await member.encoder.refusal(member.encoder.stub.Encode(request, timeout=60))
            assert isinstance(error, MissingImages)
        first.cancel()


async def test_a_waiter_whose_time_is_up_hears_so_and_the_leader_goes_on(fresh_redis: RedisServer) -> None:
    async with fleet(fresh_redis, HOLDS, {}) as (leader, other):
        first = leader.ask(png(5001))
        await leased(fresh_redis)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other.encoder.stub.Encode(encode_request(png(5001)), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: other.leftovers == (0, 0), what="nobody waits at the other one any more")
        assert not first.done()
        await leader.ask(png(5002))  # the company that its batch waits for
        assert Place((await first).report.place) is Place.ENCODED
        assert Place((await other.ask(png(5001))).report.place) is Place.REDIS


async def test_a_bad_image_is_refused_by_each_that_is_sent_it(fresh_redis: RedisServer) -> None:
    data = b"\x89PNG\r\n\x1a\n and no more"
    async with fleet(fresh_redis, {}, {}, {}) as members:
        calls = [member.encoder.refusal(member.ask(data)) for member in members for _ in range(4)]
        errors = await asyncio.gather(*calls)
        assert {(type(error), error.field) for error in errors} == {(InvalidArgument, "image")}
        assert [member.passes for member in members] == [0, 0, 0]


async def test_one_that_is_full_refuses_and_another_one_encodes(fresh_redis: RedisServer) -> None:
    async with fleet(fresh_redis, HOLDS | {"max_queue": 1}, {}) as (full, other):
        first = full.ask(png(5003))
        await until(lambda: full.leftovers == (1, 1), what="its one place taken")
        error = await full.encoder.refusal(full.ask(png(5004)))
        assert isinstance(error, ResourceExhausted)
        assert error.retry_delay_ms > 0
        assert Place((await other.ask(png(5004))).report.place) is Place.ENCODED
        first.cancel()


async def test_all_who_ask_for_an_image_take_one_place_and_ask_redis_as_one(fresh_redis: RedisServer) -> None:
    """In the leader's queue; and a herd of waiters costs Redis what one of them would."""
    async with fleet(fresh_redis, HOLDS | {"max_queue": 1}, {}) as (leader, other):
        calls = [leader.ask(png(5005)) for _ in range(50)]
        await leased(fresh_redis)
        await until(lambda: leader.waiters == 50, what="all at the leader wait")
        assert leader.leftovers == (1, 1)
        assert await scripts_run(fresh_redis) == 1
        calls += [other.ask(png(5005)) for _ in range(50)]
        await until(lambda: other.waiters == 50, what="all at the other one wait")
        assert other.leftovers == (1, 0)
        await until_polled(fresh_redis)
        calls[0].cancel()
        leader.encoder.service._pipeline._batcher._max_size = 1  # the company that it waits for is not needed any more
        leader.encoder.service._pipeline._batcher._changed.set()
        replies = await asyncio.gather(*calls[1:])
        assert places(replies)[1:] == [Place.SHARED] * 98  # and the first that came, if it was not the one that left
        assert (leader.passes, other.passes) == (1, 0)


async def test_tenants_share_neither_a_flight_nor_a_lease(fresh_redis: RedisServer) -> None:
    image, anything = ImageFile(png(5006)), ReductionSpec()
    async with fleet(fresh_redis, HOLDS, {}) as (one, other):
        encoders = [member.encoder.service.encoder for member in (one, other)]
        made = await asyncio.gather(
            encoders[0].encode(image, anything, "a"),
            encoders[0].encode(image, anything, "b"),
            encoders[1].encode(image, anything, "c"),
        )
        assert [encoding.place for encoding in made] == [Place.ENCODED] * 3
        assert (one.passes, other.passes) == (2, 1)


async def test_redis_comes_back_empty_during_a_pass(fresh_redis: RedisServer) -> None:
    async with fleet(fresh_redis, HOLDS, {}) as (leader, other):
        calls = [leader.ask(png(5007))]
        await leased(fresh_redis)
        calls.append(other.ask(png(5007)))
        await until_polled(fresh_redis)
        fresh_redis.restart()
        await calls[1]
        calls.append(leader.ask(png(5008)))
        replies = await asyncio.gather(*calls)
        assert places(replies) == [Place.ENCODED] * 3
        assert (leader.passes, other.passes) == (2, 1)
        assert Place((await other.ask(png(5008))).report.place) is Place.REDIS
