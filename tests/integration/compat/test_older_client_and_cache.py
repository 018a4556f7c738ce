"""This release's client reads recorded streams, and its cache what an earlier encoder left in Redis."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import redis
import torch

from embedded_model import checkpoint_dir
from tests.compat.replay import calls_to_repeat, decoder_of, differences, encoder_of, read_events
from tests.compat.tape import Tape
from tests.compat.wire import Wire, serving
from tests.support.decoder import in_process_decoder
from tests.support.redis_server import RedisServer
from vscan.cache.body import read_body
from vscan.cache.entry import EntrySeal, Flaw
from vscan.cache.lease import ENTRY_PREFIX
from vscan.content_key import content_key
from vscan.v1 import decoder_pb2, encoder_pb2
from vscan.visual_tokens import CODEC_VERSION, VisualTokens
from vscan.wire import reduction_from_proto
from vscan_client import AsyncClient


def described(tape: Tape) -> encoder_pb2.DescribeEncoderResponse:
    (call,) = [call for call in calls_to_repeat(tape, "Describe") if "VisionEncoder" in call.method]
    return encoder_pb2.DescribeEncoderResponse.FromString(call.replies[0])


def names_now(tape: Tape) -> dict[bytes, bytes]:
    """By the name under which the recorded encoder cached an image, the one that this release gives it."""
    said, names = described(tape), {}
    for call in calls_to_repeat(tape, "Encode"):
        asked, reply = (
            encoder_pb2.EncodeRequest.FromString(call.request),
            encoder_pb2.EncodeResponse.FromString(call.replies[0]),
        )
        names[reply.content_key] = content_key(
            codec_version=CODEC_VERSION,
            fingerprint=said.fingerprint,
            reduction=reduction_from_proto(asked.reduction).filled_from(reduction_from_proto(said.defaults.reduction)),
            dtype="float32",
            tenant="default",
            media_sha256=asked.image.sha256 or hashlib.sha256(asked.image.data).digest(),
        )
    return names


async def test_the_client_reads_the_recorded_streams(tape: Tape) -> None:
    calls = tape.calls("Generate")
    async with serving(decoder_of(tape)) as address, AsyncClient(server=address) as client:
        answers = [await client.ask(b"anything", "anything") for _ in calls]
        assert (await client.describe()).decoder.model
    recorded = [read_events(call.replies) for call in calls]
    for answer, then in zip(answers, recorded, strict=True):
        assert answer.text == then["text"]
        assert [token.token_id for token in answer.tokens] == then["tokens"]
        assert [[image.sha256.hex(), image.tokens_before, image.tokens_after] for image in answer.images] == then["images"]
        assert [[one.layer, one.tokens_before, one.tokens_after] for one in answer.pruning] == then["pruned"]
        assert answer.finish_reason != "unknown"
    # And as the earlier client read them.
    told = [answer for answer in tape.answers if "text" in answer]
    assert [answer.text for answer in answers] == [answer["text"] for answer in told]


def test_an_entry_is_read_or_never_looked_for(tape: Tape) -> None:
    entries = {bytes.fromhex(entry.name.removeprefix(ENTRY_PREFIX)): entry.value for entry in tape.entries}
    replies = [encoder_pb2.EncodeResponse.FromString(call.replies[0]) for call in calls_to_repeat(tape, "Encode")]
    made = {reply.content_key: reply.visual_tokens for reply in replies if reply.HasField("visual_tokens")}
    assert entries.keys() == made.keys()
    same_codec = described(tape).codec_version == CODEC_VERSION
    for then, now in names_now(tape).items():
        assert (then == now) is same_codec  # another codec version makes another name: a clean miss
        body = EntrySeal().open(then, entries[then])
        if not same_codec:
            assert body is Flaw.VERSION
            continue
        assert not isinstance(body, Flaw)
        value, sent = read_body(body), VisualTokens.from_proto(made[then])
        assert torch.equal(value.tokens, sent.tokens)
        assert torch.equal(value.kept_indices, sent.kept_indices)


def test_an_entry_that_was_changed_or_moved_is_not_read(tape: Tape) -> None:
    one, other = (bytes.fromhex(entry.name.removeprefix(ENTRY_PREFIX)) for entry in tape.entries[:2])
    value = tape.entries[0].value
    assert not isinstance(EntrySeal().open(one, value), Flaw)
    assert EntrySeal().open(one, value[:-1] + bytes([value[-1] ^ 1])) is Flaw.TAG
    assert EntrySeal().open(other, value) is Flaw.KEY
    newer = value[:6] + (CODEC_VERSION + 1).to_bytes(2, "big") + value[8:]
    assert EntrySeal().open(one, newer) is Flaw.VERSION


async def test_a_decoder_answers_from_what_the_earlier_encoder_cached(tape: Tape, fresh_redis: RedisServer) -> None:
    with redis.Redis.from_url(fresh_redis.url) as client:
        for entry in tape.entries:
            client.set(entry.name, entry.value)
    seen: list[str] = []
    async with serving(encoder_of(tape, seen=seen)) as encoder:
        settings: dict[str, Any] = {"model": checkpoint_dir(), "redis_url": fresh_redis.url}
        async with in_process_decoder(encoder, **settings) as decoder, Wire(decoder.address) as wire:
            calls = calls_to_repeat(tape, "Generate")
            answers = [await wire.call(call.method, call.request) for call in calls]
    for call, replies in zip(calls, answers, strict=True):
        assert differences(read_events(call.replies), read_events(replies)) == []
    if described(tape).codec_version == CODEC_VERSION:
        assert set(seen) == {"Describe"}
    started = decoder_pb2.GenerateEvent.FromString(answers[0][0]).started
    assert started.images[0].place == 3  # PLACE_REDIS


@pytest.mark.parametrize("path", [".text", ".tokens[0]", ".logprobs[0]", ".pruned[0][2]"])
def test_a_difference_in_an_answer_is_seen(tape: Tape, path: str) -> None:
    (call, *_) = tape.calls("Generate")
    events = [decoder_pb2.GenerateEvent.FromString(reply) for reply in call.replies]
    delta = next(event.delta for event in events if event.delta.tokens)
    if path == ".text":
        delta.text += "x"
    elif path == ".tokens[0]":
        delta.tokens[0].token_id += 1
    elif path == ".logprobs[0]":
        delta.tokens[0].logprob -= 0.01
    else:
        events[-1].finished.pruning[0].tokens_after += 1
    spoiled = [event.SerializeToString() for event in events]
    (found,) = differences(read_events(call.replies), read_events(spoiled))
    assert found.startswith(path)
