"""The resolver with the real encoder, a real transformer in it, and restarts of both around one Redis."""

from __future__ import annotations

import hashlib

import pytest

from decoder_service.pairing import Fit
from tests.support.encoder import LLAVA15, png, running_encoder
from tests.support.redis_server import RedisServer, free_port
from tests.support.resolving import ANYTHING, inputs, resolver
from tests.support.visual_values import same
from vscan.cache.place import Place
from vscan.checkpoint import Checkpoint
from vscan.errors import InvalidArgument, MissingImages
from vscan.specs import ReductionMethod, ReductionSpec, TokensPerTile


@pytest.fixture(scope="module")
def fit() -> Fit:
    """What the decoder of the same checkpoint needs."""
    checkpoint = Checkpoint.open(LLAVA15)
    return Fit(pair_fingerprint=checkpoint.pair_fingerprint(), hidden_size=checkpoint.config.get_text_config().hidden_size)


async def test_a_repeated_image_costs_no_transformer_also_after_both_restart(redis_server: RedisServer, fit: Fit) -> None:
    image = png(seed=71)
    async with running_encoder(redis_url=redis_server.url) as encoder, resolver(redis_server, encoder.address, fit=fit) as one:
        cold, again = [(await one.resolve(inputs(image), ANYTHING, "default"))[0] for _ in range(2)]
    async with (
        running_encoder(redis_url=redis_server.url) as encoder,
        resolver(redis_server, encoder.address, fit=fit) as other,
    ):
        by_digest = hashlib.sha256(image).digest()
        (after,) = await other.resolve(inputs(by_digest), ANYTHING, "default")
        (from_encoder,) = await other.resolve(inputs(by_digest), ANYTHING, "default")
    async with running_encoder(redis_url=redis_server.url) as encoder, resolver(None, encoder.address, fit=fit) as no_redis:
        (through_encoder,) = await no_redis.resolve(inputs(image), ANYTHING, "default")
    places = [found.place for found in (cold, again, after, from_encoder, through_encoder)]
    assert places == [Place.ENCODED, Place.MEMORY, Place.REDIS, Place.MEMORY, Place.REDIS]
    assert cold.timings is not None
    assert through_encoder.timings is not None
    assert cold.timings.vit_ms > 0
    assert (through_encoder.timings.vit_ms, through_encoder.timings.decode_image_ms, through_encoder.timings.reduce_ms) == (
        0,
        0,
        0,
    )
    assert all(same(found.tokens, cold.tokens) for found in (again, after, from_encoder, through_encoder))


async def test_other_settings_of_the_encoder_are_another_fingerprint(redis_server: RedisServer, fit: Fit) -> None:
    image, address = png(seed=72), f"127.0.0.1:{free_port()}"
    async with running_encoder(redis_url=redis_server.url, bind=address), resolver(redis_server, address, fit=fit) as one:
        (before,) = await one.resolve(inputs(image), ANYTHING, "default")
    async with (
        running_encoder(redis_url=redis_server.url, bind=address, window=4),
        resolver(redis_server, address, fit=fit) as one,
    ):
        (after,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert (before.place, after.place) == (Place.ENCODED, Place.ENCODED)
    assert not same(before.tokens, after.tokens)


async def test_its_errors_name_the_field_of_the_callers_request(fit: Fit) -> None:
    async with running_encoder() as encoder, resolver(None, encoder.address, fit=fit) as one:
        with pytest.raises(InvalidArgument) as bad_image:
            await one.resolve(inputs(png(seed=73), b"\x89PNG\r\n\x1a\n cut"), ANYTHING, "default")
        with pytest.raises(InvalidArgument) as bad_budget:
            await one.resolve(inputs(png(seed=73)), ReductionSpec(budget=TokensPerTile(10**6)), "default")
        with pytest.raises(MissingImages) as missing:
            await one.resolve(inputs(png(seed=73), b"u" * 32, b"v" * 32), ANYTHING, "default")
        (next_works,) = await one.resolve(inputs(png(seed=73)), ReductionSpec(method=ReductionMethod.NONE), "default")
    assert bad_image.value.field.startswith("messages[1].parts[0].image")
    assert bad_budget.value.field == "reduction.budget.tokens_per_tile"
    assert missing.value.sha256 == (b"u" * 32, b"v" * 32)
    assert next_works.tokens.kept_count == next_works.tokens.unreduced_count
