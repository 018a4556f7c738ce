"""What a tenant learns of another one's images through a decoder: nothing, from its memory, from Redis or from its encoder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from decoder_service.images import ImageResolver
from tests.support.identities import IdentitiesFile
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import commands
from tests.support.resolving import ANYTHING, FIT, inputs, resolver, small_encoder
from tests.support.small_encoder import SmallEncoder, image_bytes
from tests.support.until import until
from vscan.cache.place import Place
from vscan.errors import MissingImages, Unavailable
from vscan.rpc.bearer import TokenFile

IMAGE = image_bytes("of the default tenant")
THEIRS, UNKNOWN = hashlib.sha256(IMAGE).digest(), hashlib.sha256(b"nobody has this").digest()


async def learned(one: ImageResolver, encoder: SmallEncoder, redis: RedisServer, digest: bytes) -> tuple[object, ...]:
    """All that another tenant sees of a digest, and all that is asked for its sake."""
    await commands(redis)
    arrived = encoder.arrived
    with pytest.raises(MissingImages) as missing:
        await one.resolve(inputs(digest), ANYTHING, "somebody-else")
    told = str(missing.value).replace(digest.hex(), "")
    return told, missing.value.field, missing.value.sha256 == (digest,), await commands(redis), encoder.arrived - arrived


@pytest.fixture
def people(tmp_path: Path) -> IdentitiesFile:
    """An encoder's: a decoder may speak for tenants, another one may not."""
    people = IdentitiesFile(tmp_path)
    people.add("decoder", on_behalf_of=True)
    people.add("single")
    return people


@pytest.mark.parametrize("where", ["the decoder's memory", "Redis", "the encoder's memory"])
async def test_another_tenants_digest_is_as_an_unknown_one(
    fresh_redis: RedisServer, people: IdentitiesFile, where: str
) -> None:
    token = people.tokens["decoder"]
    async with (
        small_encoder(fresh_redis, people=people) as (encoder, address),
        resolver(fresh_redis, address, token=token) as one,
    ):
        await one.resolve(inputs(IMAGE), ANYTHING, "default")
        async with resolver(fresh_redis, address, token=token) as other:
            asked = one if where == "the decoder's memory" else other
            if where == "the encoder's memory":
                fresh_redis.restart()
            theirs = await learned(asked, encoder, fresh_redis, THEIRS)
            assert theirs == await learned(asked, encoder, fresh_redis, UNKNOWN)
            (own,) = await asked.resolve(inputs(THEIRS), ANYTHING, "default")
    places = {"the decoder's memory": Place.MEMORY, "Redis": Place.REDIS, "the encoder's memory": Place.ENCODER_MEMORY}
    assert own.place is places[where]
    assert encoder.runs == 1


async def test_each_call_says_for_whom_it_is(people: IdentitiesFile) -> None:
    token = people.tokens["decoder"]
    async with small_encoder(None, people=people) as (encoder, address), resolver(None, address, token=token) as one:
        found = [(await one.resolve(inputs(IMAGE), ANYTHING, tenant))[0] for tenant in ("default", "shop")]
        (again,) = await one.resolve(inputs(THEIRS), ANYTHING, "shop")
    assert [caller.tenant for caller in encoder.callers] == ["default", "shop"]
    assert [image.place for image in found] == [Place.ENCODED, Place.ENCODED]
    assert encoder.runs == 2  # nothing that one tenant sent answers another
    assert again.place is Place.MEMORY
    assert found[0].content_key != found[1].content_key == again.content_key


async def test_one_tenant_alone_needs_no_encoder_that_knows_tenants(people: IdentitiesFile) -> None:
    """A newer decoder, with a credential, before an older encoder, or before one that lets it in and no more."""
    for knows_tenants, token in ((False, "decoder"), (True, "single")):
        async with (
            small_encoder(None, people=people, knows_tenants=knows_tenants) as (encoder, address),
            resolver(None, address, token=people.tokens[token]) as one,
        ):
            (found,) = await one.resolve(inputs(IMAGE), ANYTHING, "default")
            assert found.place is Place.ENCODED
            with pytest.raises(Unavailable, match="on behalf of tenants"):
                await one.resolve(inputs(IMAGE), ANYTHING, "shop")
        assert [caller.tenant for caller in encoder.callers] == ["default"]


async def test_a_decoder_with_tenants_is_not_ready_where_the_encoder_does_not_take_its_word(
    people: IdentitiesFile,
) -> None:
    fit = replace(FIT, has_tenants=lambda: True)
    async with (
        small_encoder(None, people=people) as (_, address),
        resolver(None, address, fit=fit, token=people.tokens["single"], paired=False) as refused,
        resolver(None, address, fit=fit, token=people.tokens["decoder"]),
    ):
        await until(lambda: "on_behalf_of = true" in (refused.pairing_problem() or ""))
        with pytest.raises(Unavailable, match="on_behalf_of = true"):
            await refused.resolve(inputs(IMAGE), ANYTHING, "default")


async def test_a_reply_of_a_replica_that_knows_no_tenants_is_not_used(people: IdentitiesFile) -> None:
    """While a fleet is upgraded a newer replica may describe itself and an older one answer."""
    token = people.tokens["decoder"]
    async with small_encoder(None, people=people) as (encoder, address), resolver(None, address, token=token) as one:
        await one.resolve(inputs(IMAGE), ANYTHING, "default")
        encoder.knows_tenants = False
        with pytest.raises(Unavailable, match="made something else"):
            await one.resolve(inputs(THEIRS), ANYTHING, "shop")
        encoder.knows_tenants = True
        (found,) = await one.resolve(inputs(IMAGE), ANYTHING, "shop")
    assert found.place is Place.ENCODED


async def test_a_decoder_that_is_not_let_in_says_so(people: IdentitiesFile) -> None:
    async with small_encoder(None, people=people) as (_, address), resolver(None, address, paired=False) as one:
        await until(lambda: "does not let this decoder in (UNAUTHENTICATED)" in (one.pairing_problem() or ""))


async def test_a_new_token_is_taken_up_without_a_restart(people: IdentitiesFile) -> None:
    token_file = TokenFile(people.token_file("decoder"), "token")
    async with (
        small_encoder(None, people=people) as (_, address),
        resolver(None, address, token=token_file, refresh_seconds=0.01) as one,
    ):
        people.add("decoder", on_behalf_of=True)  # another token, in its file and in the encoder's

        async def answered() -> bool:
            try:
                await one.resolve(inputs(IMAGE), ANYTHING, "shop")
            except Unavailable:
                return False  # the encoder has not read its file again yet
            return True

        await until(answered)
