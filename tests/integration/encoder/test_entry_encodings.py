"""Encoders that write entries otherwise: every reader understands them, and the tokens are the same for all who ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.caches import raw_client
from tests.support.encoder import png, running_encoder
from tests.support.redis_server import RedisServer
from vscan.cache.entry import HEADER_BYTES
from vscan.cache.lease import entry_name
from vscan.cache.place import Place
from vscan.visual_tokens import VisualTokens

COMPRESSED: dict[str, Any] = {"cache_compression": "zstd"}
ROUNDED: dict[str, Any] = {"cache_tokens": "float8"}


@pytest.mark.parametrize("settings", [{}, COMPRESSED, ROUNDED, COMPRESSED | ROUNDED], ids=["plain", "zstd", "float8", "both"])
async def test_who_finds_tokens_gets_those_that_the_first_one_got(fresh_redis: RedisServer, settings: dict[str, Any]) -> None:
    data = png(4000)
    async with running_encoder(redis_url=fresh_redis.url, **settings) as writer:
        cold = await writer.encode(data)
        hot = await writer.encode(data)
        # How entries are packed is the writer's affair: a reader is set as it likes.
        async with running_encoder(redis_url=fresh_redis.url, **settings | {"cache_compression": "none"}) as reader:
            found = await reader.encode(data)
    places = [Place(reply.report.place) for reply in (cold, hot, found)]
    assert places == [Place.ENCODED, Place.MEMORY, Place.REDIS]
    assert cold.visual_tokens == hot.visual_tokens == found.visual_tokens


async def test_float8_is_another_encoder_whose_tokens_are_near(fresh_redis: RedisServer) -> None:
    data = png(4001)
    async with (
        running_encoder(redis_url=fresh_redis.url) as full,
        running_encoder(redis_url=fresh_redis.url, **ROUNDED) as rounded,
        raw_client(fresh_redis) as client,
    ):
        exact, near = await full.encode(data), await rounded.encode(data)
        assert Place(near.report.place) is Place.ENCODED  # full tokens are not taken for these
        assert exact.fingerprint != near.fingerprint
        sizes = [await client.strlen(entry_name(reply.content_key)) - HEADER_BYTES for reply in (exact, near)]
    one, other = (VisualTokens.from_proto(reply.visual_tokens) for reply in (exact, near))
    assert torch.equal(one.kept_indices, other.kept_indices)
    error = (one.tokens - other.tokens).norm(dim=1) / one.tokens.norm(dim=1)
    assert 0 < float(error.max()) < 2**-4
    assert sizes[1] < 0.5 * sizes[0]


async def test_without_redis_float8_is_the_same_float8(fresh_redis: RedisServer) -> None:
    async with running_encoder(**ROUNDED) as alone, running_encoder(redis_url=fresh_redis.url, **ROUNDED) as other:
        one, two = await alone.encode(png(4002)), await other.encode(png(4002))
    assert one.visual_tokens == two.visual_tokens
    assert one.fingerprint == two.fingerprint
