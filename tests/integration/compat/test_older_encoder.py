"""This release's decoder, and the recorded replies of an earlier encoder to the recorded questions of an earlier client."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc.aio

from embedded_model import checkpoint_dir
from tests.compat.replay import Change, as_it_was, calls_to_repeat, differences, encoder_of, read_events
from tests.compat.tape import Call, Tape
from tests.compat.wire import Wire, serving
from tests.support.decoder import in_process_decoder
from tests.support.until import until
from vscan.v1 import encoder_pb2


@asynccontextmanager
async def decoder_before(tape: Tape, change: Change = as_it_was) -> AsyncIterator[Wire]:
    """A wire to a decoder of this release whose encoder is the tape."""
    async with (
        serving(encoder_of(tape, change)) as encoder,
        in_process_decoder(encoder, model=checkpoint_dir()) as decoder,
        Wire(decoder.address) as wire,
    ):
        yield wire


async def ask_again(tape: Tape, change: Change = as_it_was) -> list[list[str]]:
    """For each recorded question what this decoder's answer differs in."""
    calls = calls_to_repeat(tape, "Generate")
    async with decoder_before(tape, change) as wire:
        answers = [await wire.call(call.method, call.request) for call in calls]
    pairs = zip(calls, answers, strict=True)
    return [differences(read_events(call.replies), read_events(replies)) for call, replies in pairs]


async def test_it_answers_as_the_earlier_decoder_did(tape: Tape) -> None:
    found = await ask_again(tape)
    assert len(found) >= 12
    assert found == [[]] * len(found)


async def test_other_tokens_give_other_answers(tape: Tape) -> None:
    def spoil(method: str, reply: bytes) -> bytes:
        if method != "Encode":
            return reply
        spoiled = encoder_pb2.EncodeResponse.FromString(reply)
        data = bytearray(spoiled.visual_tokens.tokens.data)
        data[: len(data) // 2] = data[len(data) // 2 :]
        spoiled.visual_tokens.tokens.data = bytes(data)
        return spoiled.SerializeToString()

    assert any(await ask_again(tape, spoil))


async def test_an_encoder_that_passes_over_what_it_does_not_know_of_a_reduction_is_not_believed(tape: Tape) -> None:
    """A field or a budget of a later release is unset for it, so it takes its own default: not what was asked for."""
    told = encoder_of(tape)
    by_default = {
        reply.report.sha256: reply for reply in map(_encoded, tape.calls("Encode")) if reply.HasField("visual_tokens")
    }

    def answer(method: str, request: bytes) -> Iterable[bytes]:
        if not method.endswith("Encode"):
            return told(method, request)
        asked = encoder_pb2.EncodeRequest.FromString(request)
        digest = asked.image.sha256 or hashlib.sha256(asked.image.data).digest()
        return [by_default[digest].SerializeToString()]

    async with (
        serving(answer) as encoder,
        in_process_decoder(encoder, model=checkpoint_dir()) as decoder,
        Wire(decoder.address) as wire,
    ):
        outcomes = {await _outcome(wire, call) for call in calls_to_repeat(tape, "Generate")}
    assert outcomes == {"answered", "UNAVAILABLE: the encoder made something else"}


async def test_an_encoder_of_another_checkpoint_is_not_paired_with(tape: Tape) -> None:
    def another(method: str, reply: bytes) -> bytes:
        if method != "Describe":
            return reply
        described = encoder_pb2.DescribeEncoderResponse.FromString(reply)
        described.pair_fingerprint = hashlib.sha256(b"another").digest()
        return described.SerializeToString()

    async with (
        serving(encoder_of(tape, another)) as encoder,
        in_process_decoder(encoder, model=checkpoint_dir(), ready=False) as decoder,
    ):
        await until(lambda: "another checkpoint" in decoder.readiness.why_not, what="the reason")


def _encoded(call: Call) -> encoder_pb2.EncodeResponse:
    return encoder_pb2.EncodeResponse.FromString(call.replies[0])


async def _outcome(wire: Wire, call: Call) -> str:
    try:
        await wire.call(call.method, call.request)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {(error.details() or '').partition(' of the request')[0]}"
    return "answered"
