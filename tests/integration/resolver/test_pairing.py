"""A decoder is ready when its encoder is there and fits, says why when not, and notices when the encoder is replaced."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from decoder_service.encoder_link import EncoderLink
from tests.support.redis_server import RedisServer, free_port
from tests.support.resolving import ANYTHING, FIT, TIMES, inputs, resolver, small_encoder
from tests.support.small_encoder import image_bytes
from tests.support.until import until
from tests.support.visual_values import same
from vscan.cache.place import Place
from vscan.errors import Unavailable
from vscan.rpc.channel import open_channel
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.v1 import encoder_pb2


async def test_without_an_encoder_it_says_so_and_finds_it_when_it_comes() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with resolver(None, address, paired=False) as one:
        await until(lambda: "UNAVAILABLE" in (one.pairing_problem() or ""))
        assert one.encoder is None
        with pytest.raises(Unavailable, match="not been reached"):
            await one.resolve(inputs(image_bytes("nobody")), ANYTHING, "default")
        async with small_encoder(None, address) as (encoder, _):
            await until(lambda: one.pairing_problem() is None, what="the encoder found")
            (found,) = await one.resolve(inputs(image_bytes("nobody")), ANYTHING, "default")
            assert one.encoder is not None
            assert one.encoder.fingerprint == encoder.fingerprint
    assert found.place is Place.ENCODED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pair_fingerprint": b"q" * 32, "model": "other-7b"}, "another checkpoint: 'other-7b'"),
        ({"hidden_size": 16}, "16 wide, the language model's 8"),
        ({"dtype": torch.bfloat16}, "bfloat16, which this decoder does not take"),
        ({"codec_version": 99}, "codec version 99"),
        ({"fingerprint": b"short"}, "not understood: fingerprint"),
    ],
)
async def test_an_encoder_that_does_not_fit_is_refused_with_the_reason(fields: dict[str, Any], said: str) -> None:
    fit = replace(FIT, dtypes=frozenset({torch.float32}))
    async with small_encoder(None, **fields) as (encoder, address), resolver(None, address, paired=False, fit=fit) as one:
        await until(lambda: said in (one.pairing_problem() or ""), what=said)
        with pytest.raises(Unavailable, match="not paired"):
            await one.resolve(inputs(image_bytes("misfit")), ANYTHING, "default")
    assert encoder.arrived == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
async def test_a_decoder_takes_any_dtype_unless_told(dtype: torch.dtype) -> None:
    image = image_bytes("dtypes")
    async with small_encoder(None, dtype=dtype) as (encoder, address), resolver(None, address) as one:
        (found,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert found.tokens.tokens.dtype is dtype
    assert same(found.tokens, encoder.expected(image))


async def test_an_address_of_something_else_is_told() -> None:
    server = RpcServer(RpcSettings(), services=["vscan.v1.Other"])
    address = await server.start()
    try:
        async with resolver(None, address, paired=False) as one:
            await until(lambda: "something else" in (one.pairing_problem() or ""))
    finally:
        await server.stop()


async def test_each_change_is_told_once() -> None:
    told: list[str | None] = []

    async def tell(problem: str | None) -> None:
        told.append(problem)

    address = f"127.0.0.1:{free_port()}"
    async with open_channel(address) as channel:
        link = EncoderLink(RenewedChannel(lambda _: channel), FIT, on_pairing=tell, **{**TIMES, "refresh_seconds": 0.01})
        link.start()
        await until(lambda: told != [])
        async with small_encoder(None, address) as (encoder, _):
            await until(lambda: encoder.describes > 3)
        async with small_encoder(None, address, hidden_size=16) as (encoder, _):
            await until(lambda: encoder.describes > 3)
        async with small_encoder(None, address) as (encoder, _):
            await until(lambda: encoder.describes > 3)
        await link.aclose()
    assert told == [
        "the encoder has not been reached yet (UNAVAILABLE)",
        None,
        "the encoder's tokens are 16 wide, the language model's 8",
        None,
    ]


async def test_a_listener_that_fails_does_not_end_the_learning() -> None:
    async def fail(problem: str | None) -> None:
        raise RuntimeError("listener")

    async with small_encoder(None) as (encoder, address), open_channel(address) as channel:
        link = EncoderLink(RenewedChannel(lambda _: channel), FIT, on_pairing=fail, **{**TIMES, "refresh_seconds": 0.01})
        link.start()
        await until(lambda: encoder.describes > 3)
        assert link.pairing_problem() is None
        await link.aclose()


async def test_while_the_encoder_is_away_cached_images_are_answered(redis_server: RedisServer) -> None:
    address = f"127.0.0.1:{free_port()}"
    in_memory, in_redis, new = image_bytes("away memory"), image_bytes("away redis"), image_bytes("away new")
    async with small_encoder(redis_server, address), resolver(redis_server, address) as other:
        await other.resolve(inputs(in_redis), ANYTHING, "default")
    async with resolver(redis_server, address, paired=False, refresh_seconds=0.01) as one:
        async with small_encoder(redis_server, address):
            await until(lambda: one.pairing_problem() is None)
            await one.resolve(inputs(in_memory), ANYTHING, "default")
        found = await one.resolve(inputs(in_memory, in_redis), ANYTHING, "default")
        assert [image.place for image in found] == [Place.MEMORY, Place.REDIS]
        assert one.pairing_problem() is None
        with pytest.raises(Unavailable, match="the encoder is away") as caught:
            await one.resolve(inputs(in_memory, new), ANYTHING, "default")
        assert caught.value.retryable
        async with small_encoder(redis_server, address):

            async def answered() -> bool:
                try:
                    return bool(await one.resolve(inputs(new), ANYTHING, "default"))
                except Unavailable:
                    return False

            await until(answered, what="the encoder is back")


async def test_a_replaced_encoder_is_noticed_though_every_image_is_cached(redis_server: RedisServer) -> None:
    address, image = f"127.0.0.1:{free_port()}", image_bytes("replaced")
    async with resolver(redis_server, address, paired=False, refresh_seconds=0.01) as one:
        async with small_encoder(redis_server, address) as (old, _):
            await until(lambda: one.pairing_problem() is None)
            await one.resolve(inputs(image), ANYTHING, "default")
        async with small_encoder(redis_server, address, fingerprint=b"n" * 32) as (new, _):
            await until(lambda: one.encoder is not None and one.encoder.fingerprint == new.fingerprint, what="noticed")
            (found,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert found.place is Place.ENCODED
    assert same(found.tokens, new.expected(image))
    assert not same(found.tokens, old.expected(image))


async def test_a_reply_of_a_replaced_encoder_is_noticed_at_once(redis_server: RedisServer) -> None:
    address = f"127.0.0.1:{free_port()}"
    cached, fresh = image_bytes("replaced cached"), image_bytes("replaced fresh")
    async with resolver(redis_server, address, paired=False) as one:
        async with small_encoder(redis_server, address):
            await until(lambda: one.pairing_problem() is None)
            await one.resolve(inputs(cached), ANYTHING, "default")
        async with small_encoder(redis_server, address, fingerprint=b"m" * 32) as (new, _):

            async def answered() -> bool:
                try:
                    found.extend(await one.resolve(inputs(cached, fresh), ANYTHING, "default"))
                except Unavailable:
                    return False  # the channel has not come back yet
                return True

            found: list[Any] = []
            await until(answered)
    # Old tokens of the one and new tokens of the other are never mixed.
    assert all(same(one.tokens, new.expected(image)) for one, image in zip(found, (cached, fresh), strict=True))


async def test_a_fleet_that_disagrees_with_itself_ends_in_unavailable() -> None:
    def disagree(reply: encoder_pb2.EncodeResponse) -> None:
        reply.fingerprint = hashlib.sha256(reply.fingerprint).digest()

    async with small_encoder(None, spoil_reply=disagree) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(Unavailable, match="being replaced"):
            await one.resolve(inputs(image_bytes("disagree")), ANYTHING, "default")
        assert encoder.arrived == 3
        encoder.spoil_reply = lambda reply: None
        (found,) = await one.resolve(inputs(image_bytes("disagree")), ANYTHING, "default")
    assert found.place is Place.ENCODER_MEMORY


@pytest.mark.parametrize("images", [1, 2])
async def test_encoders_of_two_releases_behind_one_name_both_serve(images: int) -> None:
    """As in a rolling upgrade to a release whose tokens are others: calls go to the two in turn, whoever described itself."""
    async with (
        small_encoder(None, fingerprint=b"a" * 32) as (one, first),
        small_encoder(None, fingerprint=b"b" * 32) as (other, second),
        resolver(None, f"ipv4:{first},{second}") as found,
    ):
        for number in range(24):
            data = [image_bytes(f"unlike {number} {n}") for n in range(images)]
            resolved = await found.resolve(inputs(*data), ANYTHING, "default")
            ways = [[encoder.expected(image) for image in data] for encoder in (one, other)]
            # All of one request are of one encoder.
            assert any(all(map(same, [each.tokens for each in resolved], way)) for way in ways)
            assert {each.place for each in resolved} <= {Place.ENCODED, Place.MEMORY, Place.ENCODER_MEMORY}
        assert one.arrived
        assert other.arrived


async def test_the_replaced_encoder_may_not_fit() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with resolver(None, address, paired=False, refresh_seconds=0.01) as one:
        async with small_encoder(None, address):
            await until(lambda: one.pairing_problem() is None)
        async with small_encoder(None, address, fingerprint=b"o" * 32, pair_fingerprint=b"o" * 32):
            await until(lambda: "another checkpoint" in (one.pairing_problem() or ""))
            with pytest.raises(Unavailable, match="another checkpoint"):
                await one.resolve(inputs(image_bytes("unfit")), ANYTHING, "default")


async def test_closing_stops_the_learning() -> None:
    async with small_encoder(None) as (encoder, address):
        async with resolver(None, address, refresh_seconds=0.01):
            await until(lambda: encoder.describes > 2)
        before = len(asyncio.all_tasks())
        seen = encoder.describes
        async with resolver(None, address):
            await until(lambda: encoder.describes > seen)
        assert len(asyncio.all_tasks()) <= before
