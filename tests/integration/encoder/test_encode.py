"""Encode, Lookup and Describe over real gRPC: what is asked is what comes, and it is made once."""

import asyncio
import hashlib
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.integration.encoder.test_trace import Watched
from tests.support.encoder import PARITY, RunningEncoder, encode_request, png, running_encoder, tokens_per_tile
from vscan.cache.place import Place
from vscan.errors import InvalidArgument, MissingImages, ResourceExhausted
from vscan.specs import ReductionMethod, ReductionSpec, TargetAverage
from vscan.telemetry.providers import Telemetry
from vscan.tensors import dtype_to_proto
from vscan.v1 import encoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2 as tokens_pb
from vscan.v1.encoder_pb2_grpc import VisionEncoderStub
from vscan.visual_tokens import VisualTokens
from vscan.wire import reduction_from_proto

METHODS = [value for name, value in tokens_pb.ReductionMethod.items() if value]


def stub(encoder: RunningEncoder) -> Any:
    return VisionEncoderStub(encoder.channel)  # type: ignore[no-untyped-call]


def by_digest(data: bytes, **reduction: Any) -> pb.EncodeRequest:
    request = encode_request(data, **reduction)
    request.image.sha256 = hashlib.sha256(data).digest()
    return request


def place_of(response: pb.EncodeResponse) -> Place:
    return Place(response.report.place)


def counted(exporter: InMemorySpanExporter, name: str) -> int:
    return sum(span.name == name for span in exporter.get_finished_spans())


def traced() -> tuple[Telemetry, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Telemetry(provider), exporter


async def test_an_image_is_encoded_once_and_then_found_by_bytes_and_by_digest() -> None:
    data = png(1)
    async with running_encoder() as encoder:
        first = await encoder.encode(data)
        assert first.report.sha256 == hashlib.sha256(data).digest()
        assert (first.report.tokens_before, first.report.tokens_after) == (576, 96)
        assert place_of(first) == Place.ENCODED
        assert first.timings.vit_ms > 0
        assert first.timings.decode_image_ms > 0
        again = await encoder.encode(data)
        named = await stub(encoder).Encode(by_digest(data))
        for response in (again, named):
            assert place_of(response) == Place.MEMORY
            assert response.visual_tokens == first.visual_tokens
            assert response.content_key == first.content_key
            assert response.timings.vit_ms == response.timings.decode_image_ms == response.timings.reduce_ms == 0


async def test_an_unknown_digest_is_told_as_missing() -> None:
    async with running_encoder() as encoder:
        digest = hashlib.sha256(b"unknown").digest()
        error = await encoder.refusal(stub(encoder).Encode(pb.EncodeRequest(image=tokens_pb.Image(sha256=digest))))
        assert isinstance(error, MissingImages)
        assert error.sha256 == (digest,)
        other = await encoder.refusal(stub(encoder).Encode(by_digest(png(1), budget=tokens_per_tile(5))))
        assert isinstance(other, MissingImages)


async def test_a_reference_has_counts_and_key_but_no_tokens() -> None:
    async with running_encoder() as encoder:
        request = encode_request(png(2))
        request.reply_form = pb.REPLY_FORM_REFERENCE
        reference = await stub(encoder).Encode(request)
        assert not reference.HasField("visual_tokens")
        assert reference.report.tokens_after == 96
        inline = await encoder.encode(png(2))
        assert inline.content_key == reference.content_key
        assert place_of(inline) == Place.MEMORY


WHOLE_BYTES = 576 * 64 * 4  # of the tokens of an image, where all are kept
SMALL: dict[str, Any] = {"max_image_bytes": 50_000, "max_video_bytes": 50_000}


async def test_more_tokens_than_a_message_holds_are_refused_before_the_tower_runs() -> None:
    watched = Watched()
    everything = tokens_pb.REDUCTION_METHOD_NONE
    text = "reduction: 147,456 bytes of tokens, limit 100,000 bytes of a message; keep fewer"
    async with running_encoder(telemetry=watched.telemetry, max_message_bytes=100_000, **SMALL) as encoder:
        made: list[Any]
        error = await encoder.refusal(encoder.encode(png(30), method=everything))
        assert isinstance(error, InvalidArgument)
        assert (str(error), error.field) == (text, "reduction")
        assert not watched.spans("vit")
        assert (await encoder.encode(png(30))).report.tokens_after == 96  # on the same connection
        reference = encode_request(png(30), method=everything)
        reference.reply_form = pb.REPLY_FORM_REFERENCE
        wanted = [
            stub(encoder).Encode(encode_request(png(30), method=everything)),
            *(stub(encoder).Encode(reference) for _ in "ab"),
        ]
        refused, *made = await asyncio.gather(*wanted, return_exceptions=True)
        assert text in str(refused)
        assert [response.report.tokens_after for response in made] == [576, 576], "without their bytes they fit"
        assert len(watched.spans("vit")) == 2
        error = await encoder.refusal(stub(encoder).Encode(by_digest(png(30), method=everything)))
        assert str(error) == text, "also where they are cached"


async def test_what_is_sent_beside_the_tokens_counts() -> None:
    async with running_encoder(max_message_bytes=WHOLE_BYTES + 10, **SMALL) as encoder:
        error = await encoder.refusal(encoder.encode(png(31), method=tokens_pb.REDUCTION_METHOD_NONE))
        assert (error.field, error.limit) == ("reduction", "147,466 bytes of a message; keep fewer")
    async with running_encoder(max_message_bytes=WHOLE_BYTES + 4096, **SMALL) as encoder:
        assert (await encoder.encode(png(31), method=tokens_pb.REDUCTION_METHOD_NONE)).report.tokens_after == 576


async def test_lookup_tells_places_and_moves_nothing() -> None:
    data, other = png(3), png(4)
    digests = [hashlib.sha256(entry).digest() for entry in (other, data)]
    async with running_encoder() as encoder:
        await encoder.encode(data)
        found = await stub(encoder).Lookup(pb.LookupRequest(sha256=digests))
        assert [result.sha256 for result in found.results] == digests
        assert [result.place for result in found.results] == [Place.UNSPECIFIED, Place.MEMORY]
        smaller = tokens_pb.ReductionSpec(budget=tokens_per_tile(5))
        found = await stub(encoder).Lookup(pb.LookupRequest(sha256=digests, reduction=smaller))
        assert [result.place for result in found.results] == [Place.UNSPECIFIED, Place.UNSPECIFIED]


async def test_describe_says_what_an_unset_field_means_and_what_is_refused() -> None:
    async with running_encoder(max_image_bytes=12345, model_alias="mine", reduction_local_share=0.25) as encoder:
        described = await stub(encoder).Describe(pb.DescribeEncoderRequest())
        assert (described.model, described.family, described.hidden_size) == ("mine", "llava", 64)
        assert (described.tokens_per_tile, described.dtype) == (576, 1)
        assert len(described.fingerprint) == len(described.pair_fingerprint) == 32
        assert described.limits.max_image_bytes == 12345
        assert described.limits.max_image_pixels == 50_000_000
        defaults = described.defaults
        assert (defaults.shallow_layer, defaults.deep_layer, defaults.window) == (5, 6, 6)
        assert defaults.skip_padding
        assert reduction_from_proto(defaults.reduction) == ReductionSpec(
            method=ReductionMethod.VSCAN, budget=TargetAverage(1 / 9), local_share=0.25, merge=True, seed=0
        )
        response = await encoder.encode(png(5))
        assert response.fingerprint == described.fingerprint


async def test_a_spec_that_says_the_defaults_is_the_same_work() -> None:
    async with running_encoder() as encoder:
        described = await stub(encoder).Describe(pb.DescribeEncoderRequest())
        first = await encoder.encode(png(6))
        said = encode_request(png(6))
        said.reduction.CopyFrom(described.defaults.reduction)
        assert place_of(await stub(encoder).Encode(said)) == Place.MEMORY
        unread = await encoder.encode(png(6), seed=5)  # only the random control reads a seed
        assert unread.content_key == first.content_key


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_served_with_its_budget(method: int) -> None:
    async with running_encoder() as encoder:
        response = await encoder.encode(png(7), method=method, budget=tokens_per_tile(81), seed=3)
        value = VisualTokens.from_proto(response.visual_tokens)
        expected = 576 if method == tokens_pb.REDUCTION_METHOD_NONE else 81
        assert value.kept_count == response.report.tokens_after == expected
        assert value.unreduced_count == 576
        assert [(tile.rows, tile.columns) for tile in value.tiles] == [(24, 24)]
        again = await encoder.encode(png(7), method=method, budget=tokens_per_tile(81), seed=3)
        assert place_of(again) == Place.MEMORY


@pytest.mark.parametrize("method", METHODS)
async def test_to_keep_all_tokens_is_no_reduction_whatever_the_method(method: int) -> None:
    async with running_encoder() as encoder:
        whole = await encoder.encode(png(7), method=tokens_pb.REDUCTION_METHOD_NONE)
        for budget in (tokens_per_tile(576), tokens_pb.Budget(ratio=1), tokens_pb.Budget(target_average=1)):
            kept = await encoder.encode(png(7), method=method, budget=budget, seed=3)
            assert kept.report.tokens_after == 576
            assert kept.visual_tokens == whole.visual_tokens


async def test_without_merging_the_tokens_are_those_of_the_unreduced_image() -> None:
    async with running_encoder() as encoder:
        data = (PARITY / "sq_b.png").read_bytes()
        whole = VisualTokens.from_proto((await encoder.encode(data, method=tokens_pb.REDUCTION_METHOD_NONE)).visual_tokens)
        kept = VisualTokens.from_proto((await encoder.encode(data, merge=False)).visual_tokens)
        assert kept.merged_into is None
        torch.testing.assert_close(kept.tokens, whole.tokens[kept.kept_indices], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_half_precision_is_served_in_its_own_type(dtype: str) -> None:
    async with running_encoder(dtype=dtype) as encoder:
        described = await stub(encoder).Describe(pb.DescribeEncoderRequest())
        value = VisualTokens.from_proto((await encoder.encode(png(11))).visual_tokens)
        assert value.tokens.dtype is getattr(torch, dtype)
        assert described.dtype == dtype_to_proto(value.tokens.dtype)
        assert value.kept_count == 96
        assert value.tokens.isfinite().all()


async def test_many_requests_share_a_pass_and_each_gets_what_it_gets_alone() -> None:
    specs: list[dict[str, Any]] = [{"budget": tokens_per_tile(count)} for count in (10, 96, 97, 576)]
    specs += [{"method": method, "budget": tokens_per_tile(50), "seed": 9} for method in METHODS]
    work = [(png(seed), spec) for seed, spec in enumerate(specs)]
    async with running_encoder(max_batch_tiles=1) as encoder:
        alone = [await encoder.encode(data, **spec) for data, spec in work]
    telemetry, exporter = traced()
    async with running_encoder(telemetry, max_batch_tiles=len(work), batch_wait_ms=3_600_000) as encoder:
        together = await asyncio.gather(*(encoder.encode(data, **spec) for data, spec in work))
    assert counted(exporter, "vit_batch") == 2, "the warm-up and one pass for all"
    for one, many in zip(alone, together, strict=True):
        assert one.content_key == many.content_key
        expected, value = VisualTokens.from_proto(one.visual_tokens), VisualTokens.from_proto(many.visual_tokens)
        assert torch.equal(value.kept_indices, expected.kept_indices)
        assert torch.equal(value.picked_by, expected.picked_by)
        torch.testing.assert_close(value.tokens, expected.tokens, rtol=0, atol=1e-5)


async def test_one_image_asked_for_many_times_at_once_is_encoded_once() -> None:
    telemetry, exporter = traced()
    async with running_encoder(telemetry) as encoder:
        responses = await asyncio.gather(*(encoder.encode(png(8)) for _ in range(12)))
    assert counted(exporter, "decode_image") == 1
    places = [place_of(response) for response in responses]
    assert places.count(Place.ENCODED) == 1
    assert set(places) <= {Place.ENCODED, Place.SHARED, Place.MEMORY}
    assert len({response.visual_tokens.tokens.data for response in responses}) == 1
    for response in responses:
        if place_of(response) == Place.SHARED:
            assert response.timings.vit_ms == response.timings.queue_ms == 0


async def test_one_too_many_is_told_when_to_come_back() -> None:
    async with running_encoder(max_queue=1, max_batch_tiles=2, batch_wait_ms=3_600_000) as encoder:
        calls = [asyncio.ensure_future(encoder.encode(png(seed))) for seed in (9, 10)]
        (refused,), (waiting,) = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        error = await encoder.refusal(refused)
        assert isinstance(error, ResourceExhausted)
        assert error.retry_delay_ms > 0
        waiting.cancel()
