"""Where a resolver finds an image's tokens: each image is encoded once, whoever asks, and however often."""

from __future__ import annotations

import asyncio
import hashlib

from tests.support.caches import raw_client
from tests.support.redis_server import RedisServer
from tests.support.resolving import ANYTHING, inputs, resolver, small_encoder
from tests.support.small_encoder import image_bytes
from tests.support.until import until
from tests.support.visual_values import same
from vscan.cache.place import Place
from vscan.specs import ReductionMethod, ReductionSpec, TokensPerTile


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


async def test_cold_then_repeated_then_from_another_process(redis_server: RedisServer) -> None:
    image = image_bytes("cold")
    async with small_encoder(redis_server) as (encoder, address):
        async with resolver(redis_server, address) as one:
            cold, again = [(await one.resolve(inputs(image), ANYTHING, "default"))[0] for _ in range(2)]
        async with resolver(redis_server, address) as other:
            (elsewhere,) = await other.resolve(inputs(image), ANYTHING, "default")
    assert [found.place for found in (cold, again, elsewhere)] == [Place.ENCODED, Place.MEMORY, Place.REDIS]
    assert all(same(found.tokens, encoder.expected(image)) for found in (cold, again, elsewhere))
    assert all(found.sha256 == sha256(image) for found in (cold, again, elsewhere))
    assert (encoder.runs, encoder.arrived) == (1, 1)


async def test_after_both_restart_redis_still_has_it(redis_server: RedisServer) -> None:
    image = image_bytes("restart")
    async with small_encoder(redis_server) as (_, address), resolver(redis_server, address) as before:
        await before.resolve(inputs(image), ANYTHING, "default")
    async with small_encoder(redis_server) as (encoder, address), resolver(redis_server, address) as after:
        (by_bytes,) = await after.resolve(inputs(image), ANYTHING, "default")
    async with small_encoder(redis_server) as (encoder2, address), resolver(redis_server, address) as after:
        (by_digest,) = await after.resolve(inputs(sha256(image)), ANYTHING, "default")
    assert (by_bytes.place, by_digest.place) == (Place.REDIS, Place.REDIS)
    assert (encoder.runs, encoder2.arrived) == (0, 0)


async def test_by_digest_from_the_encoders_memory() -> None:
    image = image_bytes("encoder memory")
    async with small_encoder(None) as (encoder, address):
        async with resolver(None, address) as one:
            await one.resolve(inputs(image), ANYTHING, "default")
        async with resolver(None, address) as other:
            found = [(await other.resolve(inputs(sha256(image)), ANYTHING, "default"))[0] for _ in range(2)]
    assert [one.place for one in found] == [Place.ENCODER_MEMORY, Place.MEMORY]
    assert encoder.runs == 1


async def test_what_the_encoder_found_in_redis_is_told_as_redis(redis_server: RedisServer) -> None:
    image = image_bytes("encoder redis")
    async with small_encoder(redis_server) as (_, address), resolver(redis_server, address) as one:
        await one.resolve(inputs(image), ANYTHING, "default")
    # This decoder has no Redis of its own; its encoder, with empty memory, has.
    async with small_encoder(redis_server) as (_, address), resolver(None, address) as two:
        (found,) = await two.resolve(inputs(sha256(image)), ANYTHING, "default")
    assert found.place is Place.REDIS


async def test_a_decoder_writes_nothing_to_redis(fresh_redis: RedisServer) -> None:
    async with small_encoder(None) as (_, address), resolver(fresh_redis, address) as one, raw_client(fresh_redis) as client:
        await one.resolve(inputs(image_bytes("unwritten")), ANYTHING, "default")
        assert await client.keys() == []


async def test_two_decoders_at_once_share_one_encoding() -> None:
    image = image_bytes("at once")
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one, resolver(None, address) as other:
        encoder.go.clear()
        tasks = [asyncio.create_task(each.resolve(inputs(image), ANYTHING, "default")) for each in (one, other)]
        await until(lambda: encoder.arrived == 2)
        encoder.go.set()
        places = [found.place for (found,) in await asyncio.gather(*tasks)]
    assert sorted(places) == [Place.ENCODED, Place.SHARED]
    assert encoder.runs == 1


async def test_several_images_are_encoded_at_the_same_time() -> None:
    images = [image_bytes(f"several {n}") for n in range(4)]
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        encoder.go.clear()
        task = asyncio.create_task(one.resolve(inputs(*images), ANYTHING, "default"))
        await until(lambda: encoder.arrived == len(images))  # all are there before the first is done
        encoder.go.set()
        found = await task
    assert all(same(one.tokens, encoder.expected(image)) for one, image in zip(found, images, strict=True))


async def test_several_images_are_one_command_to_redis(fresh_redis: RedisServer) -> None:
    images = [image_bytes(f"one trip {n}") for n in range(4)]
    async with small_encoder(fresh_redis) as (_, address):
        async with resolver(fresh_redis, address) as one:
            await one.resolve(inputs(*images), ANYTHING, "default")
        async with resolver(fresh_redis, address) as other, raw_client(fresh_redis) as client:
            await client.config_resetstat()
            found = await other.resolve(inputs(*images), ANYTHING, "default")
            stats = await client.info("commandstats")
    assert [one.place for one in found] == [Place.REDIS] * 4
    assert stats["cmdstat_mget"]["calls"] == 1


async def test_equal_images_of_a_request_are_resolved_once() -> None:
    image, other = image_bytes("twice"), image_bytes("once")
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        found = await one.resolve(inputs(image, other, image), ANYTHING, "default")
        again = await one.resolve(inputs(image, image), ANYTHING, "default")
    assert [one.place for one in found] == [Place.ENCODED, Place.ENCODED, Place.SHARED]
    assert [one.place for one in again] == [Place.MEMORY, Place.MEMORY]
    assert same(found[0].tokens, found[2].tokens)
    assert (encoder.arrived, encoder.runs) == (2, 2)


async def test_a_digest_beside_its_own_bytes_is_not_missing() -> None:
    image = image_bytes("digest and bytes")
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        found = await one.resolve(inputs(sha256(image), image), ANYTHING, "default")
    assert [one.sha256 for one in found] == [sha256(image)] * 2
    assert encoder.runs == 1


async def test_every_reduction_has_tokens_of_its_own() -> None:
    image = image_bytes("reductions")
    specs = [ReductionSpec(budget=TokensPerTile(5)), ReductionSpec(method=ReductionMethod.NONE), ANYTHING]
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        found = [(await one.resolve(inputs(image), spec, "default"))[0] for spec in specs]
        again = [(await one.resolve(inputs(image), spec, "default"))[0] for spec in specs]
    assert [one.tokens.kept_count for one in found] == [5, 12, 2]
    assert [one.place for one in again] == [Place.MEMORY] * 3
    assert all(same(first.tokens, second.tokens) for first, second in zip(found, again, strict=True))
    assert encoder.runs == 3


async def test_a_default_that_is_spelled_out_is_the_same_work() -> None:
    image = image_bytes("spelled out")
    async with small_encoder(None) as (_, address), resolver(None, address) as one:
        await one.resolve(inputs(image), ANYTHING, "default")
        spelled = ReductionSpec(method=ReductionMethod.VSCAN, local_share=0.5, merge=True, seed=99)  # VSCAN reads no seed
        (found,) = await one.resolve(inputs(image), spelled, "default")
    assert found.place is Place.MEMORY


async def test_a_large_image_is_hashed_beside_the_event_loop() -> None:
    image = image_bytes("large", size=3 * 2**20)
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        (found,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert found.sha256 == sha256(image)
    assert same(found.tokens, encoder.expected(image))


async def test_timings_say_who_was_asked() -> None:
    image = image_bytes("timings")
    async with small_encoder(None) as (_, address), resolver(None, address) as one:
        cold, again = [(await one.resolve(inputs(image), ANYTHING, "default"))[0] for _ in range(2)]
    assert cold.timings is not None
    assert (cold.timings.vit_ms, again.timings) == (1.5, None)
    assert cold.encode_ms > 0
    assert again.encode_ms == 0


async def test_no_images_ask_nobody() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        assert await one.resolve([], ANYTHING, "default") == []
    assert encoder.arrived == 0
