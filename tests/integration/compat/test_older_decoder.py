"""This release's encoder, and the recorded requests of an earlier decoder and an earlier client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
import torch

from embedded_model import checkpoint_dir
from tests.compat.replay import calls_to_repeat
from tests.compat.tape import Tape
from tests.compat.wire import Wire
from tests.support.encoder import running_encoder
from vscan.tensors import tensor_from_proto
from vscan.v1 import encoder_pb2

# Values that went through two builds of the same arithmetic.
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}


@asynccontextmanager
async def wire_to_encoder() -> AsyncIterator[Wire]:
    settings: dict[str, Any] = {
        "model": checkpoint_dir(),
        "shallow_layer": None,
        "window": None,
        "dtype": "auto",
        "drain_seconds": 0,
    }
    async with running_encoder(**settings) as encoder, Wire(encoder.address) as wire:
        yield wire


def as_recorded(recorded: encoder_pb2.EncodeResponse, found: encoder_pb2.EncodeResponse) -> bool:
    """Whether the same patches were kept, merged alike, and became about the same tokens."""
    one, other = recorded.visual_tokens, found.visual_tokens
    for before, now in zip(one.tiles, other.tiles, strict=False):
        if not before.HasField("area"):  # which is newer
            now.ClearField("area")
    same = all(
        getattr(one, name) == getattr(other, name)
        for name in ("kept_indices", "picked_by", "merged_into", "tiles", "unreduced_count")
    )
    return same and torch.allclose(tensor_from_proto(one.tokens), tensor_from_proto(other.tokens), **CLOSE)


async def test_it_makes_the_tokens_that_the_earlier_encoder_made(tape: Tape) -> None:
    async with wire_to_encoder() as wire:
        calls = calls_to_repeat(tape, "Encode")
        replies = [await wire.call(call.method, call.request) for call in calls]
    pairs = [
        (encoder_pb2.EncodeResponse.FromString(call.replies[0]), encoder_pb2.EncodeResponse.FromString(reply))
        for call, (reply,) in zip(calls, replies, strict=True)
    ]
    assert len(pairs) >= 6
    assert all(as_recorded(*pair) for pair in pairs)
    spoiled = encoder_pb2.EncodeResponse.FromString(calls[0].replies[0])
    spoiled.visual_tokens.kept_indices[0] += 1
    assert not as_recorded(spoiled, pairs[0][1])
    assert not as_recorded(pairs[0][0], pairs[-1][1])


async def test_it_looks_up_and_describes_itself_as_it_was_asked_then(tape: Tape) -> None:
    async with wire_to_encoder() as wire:
        for call in (*calls_to_repeat(tape, "Encode"), *calls_to_repeat(tape, "Lookup")):
            last = await wire.call(call.method, call.request)
        (call,) = [call for call in calls_to_repeat(tape, "Describe") if "VisionEncoder" in call.method]
        (described,) = await wire.call(call.method, call.request)
    looked_up = encoder_pb2.LookupResponse.FromString(last[0])
    assert [result.place for result in looked_up.results] != [0]
    then = encoder_pb2.DescribeEncoderResponse.FromString(call.replies[0])
    now = encoder_pb2.DescribeEncoderResponse.FromString(described)
    for name in ("pair_fingerprint", "hidden_size", "dtype", "family", "tokens_per_tile", "defaults"):
        assert getattr(then, name) == getattr(now, name), name


async def test_a_request_that_is_not_what_was_recorded_is_refused(tape: Tape) -> None:
    (call, *_) = calls_to_repeat(tape, "Encode")
    asked = encoder_pb2.EncodeRequest.FromString(call.request)
    asked.image.sha256 = bytes(31)
    async with wire_to_encoder() as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wire.call(call.method, asked.SerializeToString())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
