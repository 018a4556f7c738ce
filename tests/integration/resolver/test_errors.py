"""What goes wrong with an image is told as the caller of the decoder must hear it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from decoder_service.media import ImageInput
from tests.support.caches import redis_cache
from tests.support.identities import IdentitiesFile
from tests.support.redis_server import RedisServer
from tests.support.resolving import ANYTHING, inputs, resolver, small_encoder
from tests.support.small_encoder import image_bytes
from tests.support.until import until
from tests.support.visual_values import body_of, make_tokens, same
from vscan.cache.place import Place
from vscan.errors import DeadlineExceeded, InternalError, InvalidArgument, MissingImages, ResourceExhausted, Unavailable
from vscan.rpc.deadlines import Deadline
from vscan.specs import DEFAULT_REDUCTION, ReductionSpec, TokensPerTile
from vscan.v1 import encoder_pb2


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


async def test_all_unknown_digests_are_named_at_once(redis_server: RedisServer) -> None:
    known, unknown, also = image_bytes("known"), sha256(b"unknown"), sha256(b"also unknown")
    async with small_encoder(redis_server) as (encoder, address), resolver(redis_server, address) as one:
        await one.resolve(inputs(known), ANYTHING, "default")
        new = image_bytes("new beside unknown")
        with pytest.raises(MissingImages) as caught:
            await one.resolve(inputs(sha256(known), unknown, new, also, unknown), ANYTHING, "default")
        assert caught.value.sha256 == (unknown, also)
        assert caught.value.field == "messages[1].parts[0].image"
        # What did come with its bytes is not asked for again.
        (found,) = await one.resolve(inputs(sha256(new)), ANYTHING, "default")
    assert found.place is Place.MEMORY
    assert encoder.runs == 2


async def test_a_digest_known_to_one_tenant_is_unknown_to_another(tmp_path: Path) -> None:
    image, people = image_bytes("tenants"), IdentitiesFile(tmp_path)
    token = people.add("decoder", on_behalf_of=True)
    # An encoder that keeps nothing: only the decoder's memory has the tokens.
    encoder = small_encoder(None, memory_bytes=0, people=people)
    async with encoder as (_, address), resolver(None, address, token=token) as one:
        await one.resolve(inputs(image), ANYTHING, "default")
        with pytest.raises(MissingImages):
            await one.resolve(inputs(sha256(image)), ANYTHING, "somebody-else")
        (own,) = await one.resolve(inputs(sha256(image)), ANYTHING, "default")
    assert own.place is Place.MEMORY


async def test_a_bad_image_names_its_place_in_the_request() -> None:
    async with small_encoder(None) as (_, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument) as caught:
            await one.resolve(inputs(image_bytes("good"), b"GIF87a?"), ANYTHING, "default")
        assert (caught.value.field, caught.value.problem) == ("messages[1].parts[0].image.data", "not an image")
        (found,) = await one.resolve(inputs(image_bytes("good")), ANYTHING, "default")  # the next request works
    assert found.tokens.kept_count == 2


async def test_a_bad_reduction_keeps_its_name_and_limit() -> None:
    async with small_encoder(None) as (_, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument) as caught:
            await one.resolve(inputs(image_bytes("over")), ReductionSpec(budget=TokensPerTile(13)), "default")
    assert (caught.value.field, caught.value.limit) == ("reduction.budget.tokens_per_tile", "12 tokens of a tile")


@pytest.mark.parametrize("sha", [None, b"", b"short", b"x" * 33])
async def test_an_image_without_bytes_or_whole_digest_is_refused(sha: bytes | None) -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument, match=r"messages\[0\]\.image"):
            await one.resolve([ImageInput("messages[0].image", sha256=sha)], ANYTHING, "default")
    assert encoder.arrived == 0


async def test_a_busy_encoder_says_when_to_come_back() -> None:
    def busy(reply: encoder_pb2.EncodeResponse) -> None:
        raise ResourceExhausted("the encoder's queue is full", retry_delay_ms=1234)

    async with small_encoder(None, spoil_reply=busy) as (_, address), resolver(None, address) as one:
        with pytest.raises(ResourceExhausted) as caught:
            await one.resolve(inputs(image_bytes("busy")), ANYTHING, "default")
    assert caught.value.retry_delay_ms == 1234
    assert str(caught.value) == "the encoder is busy"  # how full it is, with whose calls, is not for callers


@pytest.mark.parametrize(
    ("of_encoder", "of_caller"),
    [
        ("image", "messages[0].parts[0].image"),
        ("image.data", "messages[0].parts[0].image.data"),
        ("video.frames.images[2].data", "messages[0].parts[0].image.frames.images[2].data"),
        ("reduction.budget", "reduction.budget"),
        ("reply", "reduction"),
        ("images[2]", "messages[0].parts[0].image.images[2]"),  # of frames, where the encoder names no video
        ("imagery", "messages[0].parts[0].image.imagery"),
    ],
)
async def test_what_the_encoder_refuses_has_its_name_in_the_callers_request(of_encoder: str, of_caller: str) -> None:
    def refuse(reply: encoder_pb2.EncodeResponse) -> None:
        raise InvalidArgument(of_encoder, "no good", limit="one of them")

    async with small_encoder(None, spoil_reply=refuse) as (_, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument) as caught:
            await one.resolve(inputs(image_bytes("refused")), ANYTHING, "default")
    assert (caught.value.field, caught.value.problem, caught.value.limit) == (of_caller, "no good", "one of them")


async def test_an_unknown_fault_of_the_encoder_keeps_its_text_to_itself() -> None:
    def fail(reply: encoder_pb2.EncodeResponse) -> None:
        raise RuntimeError("secret inner text")

    async with small_encoder(None, spoil_reply=fail) as (_, address), resolver(None, address) as one:
        with pytest.raises(InternalError) as caught:
            await one.resolve(inputs(image_bytes("fault")), ANYTHING, "default")
    assert str(caught.value) == "the encoder failed"


def _of_another_image(reply: encoder_pb2.EncodeResponse) -> None:
    reply.report.sha256 = sha256(b"another")


def _without_tokens(reply: encoder_pb2.EncodeResponse) -> None:
    reply.ClearField("visual_tokens")


def _too_narrow(reply: encoder_pb2.EncodeResponse) -> None:
    reply.visual_tokens.CopyFrom(make_tokens(hidden=7).to_proto())


def _another_dtype(reply: encoder_pb2.EncodeResponse) -> None:
    reply.visual_tokens.CopyFrom(make_tokens(dtype=torch.float16).to_proto())


def _cut(reply: encoder_pb2.EncodeResponse) -> None:
    reply.visual_tokens.tokens.data = reply.visual_tokens.tokens.data[:-1]


@pytest.mark.parametrize("spoil", [_of_another_image, _without_tokens, _too_narrow, _another_dtype, _cut])
async def test_a_reply_that_is_not_what_was_asked_is_not_used(spoil: Callable[[encoder_pb2.EncodeResponse], None]) -> None:
    image = image_bytes("spoiled")
    async with small_encoder(None, spoil_reply=spoil) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(InternalError, match="not to be used"):
            await one.resolve(inputs(image), ANYTHING, "default")
        encoder.spoil_reply = lambda reply: None
        (found,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert same(found.tokens, encoder.expected(image))
    assert found.place is Place.ENCODER_MEMORY  # the bad reply was not remembered here


async def test_cached_tokens_that_do_not_fit_are_a_miss(redis_server: RedisServer) -> None:
    image = image_bytes("misfit in redis")
    async with small_encoder(None) as (encoder, address), redis_cache(redis_server) as (writer, _):
        await writer.put(
            encoder.key(DEFAULT_REDUCTION.filled_from(DEFAULT_REDUCTION), sha256(image)), body_of(make_tokens(hidden=7))
        )
        async with resolver(redis_server, address) as one:
            (found,) = await one.resolve(inputs(image), ANYTHING, "default")
    assert found.place is Place.ENCODED
    assert same(found.tokens, encoder.expected(image))


async def test_the_callers_deadline_ends_the_encoding() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        encoder.go.clear()
        with pytest.raises(DeadlineExceeded, match=r"messages\[0\]"):
            await one.resolve(inputs(image_bytes("late")), ANYTHING, "default", deadline=Deadline(time.monotonic() + 0.2))
        await until(lambda: encoder.cancelled == 1, what="the encoder heard of it")
    assert encoder.runs == 0


async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(DeadlineExceeded):
            await one.resolve(inputs(image_bytes("too late")), ANYTHING, "default", deadline=Deadline(time.monotonic() - 1))
    assert encoder.arrived == 0


async def test_an_encoder_that_hangs_is_unavailable_not_the_callers_deadline() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address, encode_seconds=0.2) as one:
        encoder.go.clear()
        with pytest.raises(Unavailable, match="in time"):
            await one.resolve(inputs(image_bytes("hangs")), ANYTHING, "default")


async def test_a_caller_that_leaves_frees_the_encoder() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        encoder.go.clear()
        task = asyncio.create_task(one.resolve(inputs(image_bytes("left 1"), image_bytes("left 2")), ANYTHING, "default"))
        await until(lambda: encoder.arrived == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: encoder.cancelled == 2, what="the encoder heard of it")
    assert encoder.runs == 0


async def test_one_bad_image_ends_the_others() -> None:
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        encoder.go.clear()
        with pytest.raises(InvalidArgument):
            await one.resolve(inputs(image_bytes("waiting"), b"bad"), ANYTHING, "default")
        await until(lambda: encoder.cancelled == encoder.arrived - 1, what="the other was cancelled")


async def test_redis_dead_costs_no_answer(fresh_redis: RedisServer) -> None:
    image = image_bytes("redis dead")
    async with small_encoder(fresh_redis) as (encoder, address), resolver(fresh_redis, address) as one:
        fresh_redis.kill()
        places = [(await one.resolve(inputs(image), ANYTHING, "default"))[0].place for _ in range(2)]
        fresh_redis.start()
        new = image_bytes("redis back")

        async def in_redis() -> bool:
            async with resolver(fresh_redis, address) as other:
                await one.resolve(inputs(image_bytes(f"probe {encoder.arrived}")), ANYTHING, "default")
                key = encoder.key(DEFAULT_REDUCTION.filled_from(DEFAULT_REDUCTION), sha256(new))
                await encoder.cache.put(key, encoder.expected(new))
                (found,) = await other.resolve(inputs(new), ANYTHING, "default")
                return found.place is Place.REDIS

        await until(in_redis, what="Redis picked up by the encoder")
    assert places == [Place.ENCODED, Place.MEMORY]
