"""What a later release says more: fields and numbers that this one does not know are survived by services and client."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio
import pytest

from embedded_model import checkpoint_dir
from tests.compat.record import FOLDER
from tests.compat.replay import calls_to_repeat, decoder_of, differences, encoder_of, read_events, with_unknown_fields
from tests.compat.tape import Tape
from tests.compat.wire import serving
from tests.integration.compat.test_older_decoder import wire_to_encoder
from tests.integration.compat.test_older_encoder import decoder_before
from tests.support.decoder import in_process_decoder
from tests.support.until import until
from vscan.v1 import decoder_pb2, encoder_pb2
from vscan_client import AsyncClient, FinishReason, PickedBy, Place

LATER = 77  # a number that no enum has yet


@pytest.fixture(scope="module")
def newest() -> Tape:
    """What a peer of now says, as far as one was recorded; the rest is added."""
    return max((Tape.load(path) for path in FOLDER.glob("*/tape.json")), key=lambda tape: tape.date)


def later_encoder(method: str, reply: bytes) -> bytes:
    """A reply of the encoder as a later one may send it."""
    said = (encoder_pb2.EncodeResponse if method == "Encode" else encoder_pb2.DescribeEncoderResponse).FromString(reply)
    if isinstance(said, encoder_pb2.EncodeResponse):
        said.report.place = LATER  # type: ignore[assignment]
        for row in range(0, len(said.visual_tokens.picked_by), 2):
            said.visual_tokens.picked_by[row] = LATER  # type: ignore[call-overload]
    else:
        said.family = "a family of later"
    with_unknown_fields(said)
    return said.SerializeToString()


def later_decoder(method: str, reply: bytes) -> bytes:
    """A reply of the decoder as a later one may send it."""
    if method == "Describe":
        described = decoder_pb2.DescribeDecoderResponse.FromString(reply)
        with_unknown_fields(described)
        return described.SerializeToString()
    event = decoder_pb2.GenerateEvent.FromString(reply)
    for image in event.started.images if event.HasField("started") else ():
        image.place = LATER  # type: ignore[assignment]
    if event.HasField("finished"):
        event.finished.reason = LATER  # type: ignore[assignment]
        for sample in event.finished.samples:
            sample.reason = LATER  # type: ignore[assignment]
    with_unknown_fields(event)
    return event.SerializeToString()


async def test_a_decoder_takes_the_replies_of_a_later_encoder(newest: Tape) -> None:
    calls = calls_to_repeat(newest, "Generate")
    async with decoder_before(newest, later_encoder) as wire:
        answers = [await wire.call(call.method, call.request) for call in calls]
    assert [differences(read_events(c.replies), read_events(a)) for c, a in zip(calls, answers, strict=True)] == [[]] * len(
        calls
    )


async def test_an_encoder_whose_default_is_of_a_later_kind_is_not_paired_with_and_the_reason_is_told(newest: Tape) -> None:
    def unknown_default(method: str, reply: bytes) -> bytes:
        if method != "Describe":
            return reply
        said = encoder_pb2.DescribeEncoderResponse.FromString(reply)
        said.defaults.reduction.method = LATER  # type: ignore[assignment]
        return said.SerializeToString()

    async with (
        serving(encoder_of(newest, unknown_default)) as encoder,
        in_process_decoder(encoder, model=checkpoint_dir(), ready=False) as decoder,
    ):
        await until(lambda: "method" in decoder.readiness.why_not, what="the reason")


async def test_a_decoder_takes_the_questions_of_a_later_client(newest: Tape) -> None:
    calls = calls_to_repeat(newest, "Generate")[:4]
    async with decoder_before(newest) as wire:
        for call in calls:
            asked = decoder_pb2.GenerateRequest.FromString(call.request)
            with_unknown_fields(asked)
            replies = await wire.call(call.method, asked.SerializeToString())
            assert differences(read_events(call.replies), read_events(replies)) == []
        asked.prune.rater = LATER  # type: ignore[assignment]
        with pytest.raises(grpc.aio.AioRpcError, match=r"prune\.rater"):
            await wire.call(call.method, asked.SerializeToString())


async def test_an_encoder_takes_the_requests_of_a_later_decoder(newest: Tape) -> None:
    async with wire_to_encoder() as wire:
        for call in calls_to_repeat(newest, "Encode")[:2]:
            asked = encoder_pb2.EncodeRequest.FromString(call.request)
            with_unknown_fields(asked)
            (reply,) = await wire.call(call.method, asked.SerializeToString())
            then, now = (encoder_pb2.EncodeResponse.FromString(one) for one in (call.replies[0], reply))
            assert then.visual_tokens.kept_indices == now.visual_tokens.kept_indices
        asked.reduction.method = LATER  # type: ignore[assignment]
        with pytest.raises(grpc.aio.AioRpcError, match=r"reduction\.method"):
            await wire.call(call.method, asked.SerializeToString())


def with_an_event_of_later(replies: list[bytes]) -> Iterator[bytes]:
    """Between all events one whose kind is not known."""
    unknown = decoder_pb2.GenerateEvent()
    with_unknown_fields(unknown)
    for reply in replies:
        yield reply
        if not decoder_pb2.GenerateEvent.FromString(reply).HasField("finished"):
            yield unknown.SerializeToString()


async def test_a_client_reads_the_streams_of_a_later_decoder(newest: Tape) -> None:
    calls = newest.calls("Generate")
    answer_of_later = decoder_of(newest, later_decoder)

    def answer(method: str, request: bytes) -> Iterator[bytes]:
        replies = list(answer_of_later(method, request))
        yield from with_an_event_of_later(replies) if method.endswith("Generate") else replies

    async with serving(answer) as address, AsyncClient(server=address) as client:
        answers = [await client.ask(b"anything", "anything") for _ in calls]
        assert (await client.describe()).decoder.model
    for given, call in zip(answers, calls, strict=True):
        assert given.text == read_events(call.replies)["text"]
        assert given.finish_reason is FinishReason.UNKNOWN
        assert {image.place for image in given.images} == {Place.UNKNOWN}


async def test_a_client_reads_the_tokens_of_a_later_encoder(newest: Tape) -> None:
    call = calls_to_repeat(newest, "Encode")[0]
    later = later_encoder("Encode", call.replies[0])
    async with serving(lambda method, request: [later]) as address, AsyncClient(encoder=address) as client:
        encoded = await client.encode(b"anything", tokens=True)
    assert encoded.image.place is Place.UNKNOWN
    assert encoded.kept is not None
    assert PickedBy.UNKNOWN in encoded.kept.picked_by
