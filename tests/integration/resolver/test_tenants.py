"""What a tenant learns of another one's images through a decoder: nothing, from its memory, from Redis or from its encoder."""

from __future__ import annotations

import hashlib

import pytest

from decoder_service.images import ImageResolver
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import commands
from tests.support.resolving import ANYTHING, inputs, resolver, small_encoder
from tests.support.small_encoder import SmallEncoder, image_bytes
from vscan.cache.place import Place
from vscan.errors import MissingImages

IMAGE = image_bytes("of the default tenant")
THEIRS, UNKNOWN = hashlib.sha256(IMAGE).digest(), hashlib.sha256(b"nobody has this").digest()


async def learned(one: ImageResolver, encoder: SmallEncoder, redis: RedisServer, digest: bytes) -> tuple[object, ...]:
    """All that another tenant sees of a digest, and all that is asked for its sake."""
    await commands(redis)
    arrived = encoder.arrived
    with pytest.raises(MissingImages) as missing:
        await one.resolve(inputs(digest), ANYTHING, "somebody else")
    told = str(missing.value).replace(digest.hex(), "")
    return told, missing.value.field, missing.value.sha256 == (digest,), await commands(redis), encoder.arrived - arrived


@pytest.mark.parametrize("where", ["the decoder's memory", "Redis", "the encoder's memory"])
async def test_another_tenants_digest_is_as_an_unknown_one(fresh_redis: RedisServer, where: str) -> None:
    async with small_encoder(fresh_redis) as (encoder, address), resolver(fresh_redis, address) as one:
        await one.resolve(inputs(IMAGE), ANYTHING, "default")
        async with resolver(fresh_redis, address) as other:
            asked = one if where == "the decoder's memory" else other
            if where == "the encoder's memory":
                fresh_redis.restart()
            theirs = await learned(asked, encoder, fresh_redis, THEIRS)
            assert theirs == await learned(asked, encoder, fresh_redis, UNKNOWN)
            (own,) = await asked.resolve(inputs(THEIRS), ANYTHING, "default")
    places = {"the decoder's memory": Place.MEMORY, "Redis": Place.REDIS, "the encoder's memory": Place.ENCODER_MEMORY}
    assert own.place is places[where]
    assert encoder.runs == 1
