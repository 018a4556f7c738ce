"""No entry is believed that was not written whole, under this name, by someone with the secret; a rejected one is made anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from encoder_service.media import ImageFile
from tests.support.caches import raw_client, redis_cache, secret_file
from tests.support.encoder import RunningEncoder, png, running_encoder
from tests.support.redis_server import RedisServer
from tests.support.redis_stats import commands
from tests.support.visual_values import key, make_tokens
from vscan.cache.body import BodyCodec, Encoding, EntryBody
from vscan.cache.entry import EntrySeal, Flaw
from vscan.cache.lease import entry_name
from vscan.cache.place import Place
from vscan.cache.recorder import Outcome, Tier
from vscan.content_key import content_key
from vscan.errors import MissingImages
from vscan.specs import DEFAULT_REDUCTION, FrameCount, FrameRate, ReductionSpec, TokensPerTile

SECRET = b"0123456789abcdef"
BAD = (Tier.REDIS, Outcome.BAD_ENTRY)
CODECS = {
    "plain": BodyCodec(),
    "zstd": BodyCodec(zstd_level=3),
    "float8": BodyCodec(float8=True),
    "both": BodyCodec(zstd_level=3, float8=True),
}


def settings(folder: Path, signed: bool) -> dict[str, Any]:
    return {"cache_secret_file": secret_file(folder, SECRET)} if signed else {}


def sealed(name: bytes, codec: BodyCodec, signed: bool, seed: int = 0) -> bytes:
    _, body = codec.settle(make_tokens(seed, kept=2, columns=4))
    return EntrySeal(SECRET if signed else None).seal(name, body)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("codec", CODECS)
async def test_a_flipped_bit_anywhere_is_a_counted_miss_and_is_deleted(
    redis_server: RedisServer, tmp_path: Path, codec: str, signed: bool
) -> None:
    names = []
    async with redis_cache(redis_server, **settings(tmp_path, signed)) as (cache, counts), raw_client(redis_server) as client:
        for offset in range(len(sealed(key("x"), CODECS[codec], signed))):
            name = key(f"{codec} {signed} {offset}")
            spoilt = bytearray(sealed(name, CODECS[codec], signed))
            spoilt[offset] ^= 1 << (offset % 8)
            await client.set(entry_name(name), bytes(spoilt))
            names.append(name)
        assert await cache.get_many(names) == [None] * len(names)
        assert await client.exists(*(entry_name(name) for name in names)) == 0
    assert counts.lookups == {BAD: len(names)}
    assert set(counts.flaws) >= {Flaw.FOREIGN, Flaw.VERSION, Flaw.LENGTH, Flaw.KEY, Flaw.TAG}


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
async def test_any_two_entries_swapped_are_two_counted_misses(redis_server: RedisServer, tmp_path: Path, signed: bool) -> None:
    """They differ in one thing each: image, tenant, reduction, encoder, element type, codec, kind, or a video's frames."""
    usual: dict[str, Any] = {
        "codec_version": 1,
        "fingerprint": key("fingerprint"),
        "reduction": ReductionSpec().filled_from(DEFAULT_REDUCTION),
        "dtype": "float32",
        "tenant": "a",
        "media_sha256": key(f"image {signed}"),
    }
    others: list[dict[str, Any]] = [
        {},
        {"media_sha256": key("another image")},
        {"tenant": "b"},
        {"reduction": ReductionSpec(budget=TokensPerTile(5)).filled_from(DEFAULT_REDUCTION)},
        {"fingerprint": key("another")},
        {"dtype": "float16"},
        {"codec_version": 2},
        {"sampling": FrameCount(4)},
        {"sampling": FrameCount(8)},
        {"sampling": FrameRate(4)},
    ]
    names = [content_key(**usual | other) for other in others]
    assert len(set(names)) == len(others)
    pairs = list(permutations(range(len(names)), 2))
    async with redis_cache(redis_server, **settings(tmp_path, signed)) as (cache, counts), raw_client(redis_server) as client:
        for one, other in pairs:
            await client.set(entry_name(names[one]), sealed(names[other], CODECS["plain"], signed, seed=other))
            assert await cache.get(names[one]) is None
            assert await client.exists(entry_name(names[one])) == 0
    assert counts.flaws == {Flaw.KEY: len(pairs)}


def _older(entry: bytes) -> bytes:
    return entry[:6] + (0).to_bytes(2, "big") + entry[8:]


def _bomb(entry: bytes) -> bytes:
    """Rightly sealed, and says that it unfolds to 2^40 bytes."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"
    return EntrySeal(SECRET).seal(entry[16:48], EntryBody(frame, Encoding.ZSTD))


SPOILT: dict[str, tuple[Callable[[bytes], bytes], Flaw]] = {
    "empty": (lambda entry: b"", Flaw.TRUNCATED),
    "cut": (lambda entry: entry[:-1], Flaw.LENGTH),
    "longer": (lambda entry: entry + b"\0", Flaw.LENGTH),
    "older codec": (_older, Flaw.VERSION),
    "foreign": (lambda entry: b"\x89PNG" + entry, Flaw.FOREIGN),
    "forged": (lambda entry: EntrySeal(None).seal(entry[16:48], EntryBody(entry[80:])), Flaw.TAG),
    "another secret": (lambda entry: EntrySeal(b"another secret!!").seal(entry[16:48], EntryBody(entry[80:])), Flaw.TAG),
    "sealed nonsense": (lambda entry: EntrySeal(SECRET).seal(entry[16:48], EntryBody(b"\xff" * 99)), Flaw.BODY),
    "a bomb": (_bomb, Flaw.BODY),
}


async def test_what_was_spoilt_is_encoded_again(redis_server: RedisServer, tmp_path: Path) -> None:
    changes = {"redis_url": redis_server.url, "cache_memory_bytes": 0, **settings(tmp_path, signed=True)}
    async with running_encoder(**changes) as encoder, raw_client(redis_server) as client:
        first = await encoder.encode(png(3000))
        name = entry_name(first.content_key)
        for how, (spoil, _) in SPOILT.items():
            await client.set(name, spoil(await client.get(name)))
            replies = [await encoder.encode(png(3000)) for _ in range(2)]
            assert [Place(reply.report.place) for reply in replies] == [Place.ENCODED, Place.REDIS], how
            assert replies[1].visual_tokens == first.visual_tokens
    async with (
        redis_cache(redis_server, **settings(tmp_path, signed=True)) as (cache, counts),
        raw_client(redis_server) as client,
    ):
        for spoil, flaw in SPOILT.values():
            await client.set(entry_name(key("spoilt")), spoil(sealed(key("spoilt"), CODECS["plain"], signed=True)))
            assert await cache.get(key("spoilt")) is None
            assert counts.flaws.pop(flaw) == 1


async def as_other_tenant(encoder: RunningEncoder, digest: bytes) -> tuple[object, ...]:
    """All that a tenant can learn of a digest."""
    service = encoder.service.encoder
    places = await service.lookup([digest], ReductionSpec(), "b")
    with pytest.raises(MissingImages) as missing:
        await service.find(digest, ReductionSpec(), "b")
    return places, missing.value.sha256 == (digest,), str(missing.value).replace(digest.hex(), "")


@pytest.mark.parametrize("memory_bytes", [0, 2**20], ids=["in Redis", "in memory"])
async def test_another_tenants_digest_cannot_be_told_from_an_unknown_one(fresh_redis: RedisServer, memory_bytes: int) -> None:
    data = png(3001)
    digest = hashlib.sha256(data).digest()
    async with running_encoder(redis_url=fresh_redis.url, cache_memory_bytes=memory_bytes) as encoder:
        service = encoder.service.encoder
        await service.encode(ImageFile(data), ReductionSpec(), "a")
        assert (await service.lookup([digest], ReductionSpec(), "a"))[0] is not None
        await commands(fresh_redis)
        theirs, asked = await as_other_tenant(encoder, digest), await commands(fresh_redis)
        unknown, asked_too = await as_other_tenant(encoder, key("nobody has this")), await commands(fresh_redis)
        assert theirs == unknown
        assert asked == asked_too != {}  # nor is Redis asked anything more, or less
        mine = await service.encode(ImageFile(data), ReductionSpec(), "b")
        assert mine.place is Place.ENCODED  # and having the bytes, one pays for them oneself
