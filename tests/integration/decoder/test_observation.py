"""What a question leaves behind: a span by the conventions, a log line, metrics; and nothing of its content."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, raw, refusal
from tests.support.encoder import png
from tests.support.stack import in_process_stack
from tests.support.until import until
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = decoder_pb2_grpc.DecoderStub
SPANS = InMemorySpanExporter()
METRICS, OF_ENCODER = InMemoryMetricReader(), InMemoryMetricReader()
COME_AND_GO = (
    (METRICS, (names.METRIC_RUNNING_REQUESTS, names.METRIC_DECODER_WAITING, names.METRIC_DECODER_RUNNING)),
    (OF_ENCODER, (names.METRIC_RUNNING_REQUESTS, names.METRIC_ENCODER_WAITING)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(SPANS))
    telemetry = Telemetry(tracers, MeterProvider([METRICS], shutdown_on_exit=False))
    encoding = Telemetry(meter_provider=MeterProvider([OF_ENCODER], shutdown_on_exit=False))
    async with (
        in_process_stack(telemetry=(encoding, telemetry)) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        yield stub


@pytest.fixture(autouse=True)
def _forget() -> None:
    SPANS.clear()


async def generate_span() -> ReadableSpan:
    def ended() -> list[ReadableSpan]:
        return [span for span in SPANS.get_finished_spans() if span.name == names.SPAN_GENERATE]

    await until(lambda: bool(ended()), what="the span to end")
    return ended()[0]


def points(metric: str, reader: InMemoryMetricReader = METRICS) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == metric]
    return [point for one in found for point in one.data.data_points]


async def test_the_span_of_an_answer(stub: Stub) -> None:
    reply = await ask(stub, chat(PICTURE, "w1", temperature=0.5, top_p=0.9, seed=7, max_new_tokens=3))
    attributes = dict((await generate_span()).attributes or {})
    assert (
        attributes.items()
        >= {
            names.ATTR_GEN_AI_OPERATION: "chat",
            names.ATTR_GEN_AI_PROVIDER: "vscan",
            names.ATTR_GEN_AI_REQUEST_MODEL: "llava15",
            names.ATTR_GEN_AI_RESPONSE_ID: reply.started.request_id,
            names.ATTR_GEN_AI_MAX_TOKENS: 3,
            names.ATTR_GEN_AI_TEMPERATURE: 0.5,
            names.ATTR_GEN_AI_TOP_P: 0.9,
            names.ATTR_GEN_AI_SEED: 7,
            names.ATTR_GEN_AI_FINISH_REASONS: ("length",),
            names.ATTR_GEN_AI_INPUT_TOKENS: reply.started.prompt_tokens,
            names.ATTR_GEN_AI_OUTPUT_TOKENS: 3,
            names.ATTR_IMAGES: 1,
            names.ATTR_PLACES: ("encoded",),
            names.ATTR_TENANT: "default",
        }.items()
    )
    assert attributes[names.ATTR_TIME_TO_FIRST_TOKEN_MS] == pytest.approx(reply.finished.timings.time_to_first_token_ms)


async def test_the_span_of_several_samples_has_each_ones_end(stub: Stub) -> None:
    await ask(stub, chat(PICTURE, "w1", n=2, max_new_tokens=3))
    attributes = (await generate_span()).attributes or {}
    assert attributes[names.ATTR_GEN_AI_CHOICES] == 2
    assert attributes[names.ATTR_GEN_AI_FINISH_REASONS] == ("length", "length")
    assert attributes[names.ATTR_GEN_AI_OUTPUT_TOKENS] == 6


async def test_the_span_of_a_refusal(stub: Stub) -> None:
    await refusal(stub, raw("<image> <image>", PICTURE))
    span = await generate_span()
    assert (span.attributes or {})[names.ATTR_ERROR_TYPE] == "InvalidArgument"
    assert not span.status.is_ok
    assert not span.events


async def test_the_span_of_a_cancelled_answer(stub: Stub) -> None:
    call = stub.Generate(chat("w1", max_new_tokens=3000))
    await call.read()
    call.cancel()
    assert ((await generate_span()).attributes or {})[names.ATTR_ERROR_TYPE] == "Cancelled"


async def test_one_log_line_without_content(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        reply = await ask(stub, chat(PICTURE, "w123 w124"))
        await until(lambda: any(r.name == "vscan.request" and r.vscan_fields["method"] == "Generate" for r in caplog.records))  # type: ignore[attr-defined]
    lines = [r.vscan_fields for r in caplog.records if r.name == "vscan.request"]  # type: ignore[attr-defined]
    line = next(fields for fields in lines if fields["method"] == "Generate")
    assert line["status"] == "OK"
    assert line["request"] == reply.started.request_id
    assert (line["images"], line["visual_tokens"], line["visual_tokens_unreduced"]) == (1, 96, 576)
    assert line["completion_tokens"] == 6
    assert line["time_to_first_token_ms"] > 0
    everything = " ".join([record.getMessage() + str(record.__dict__) for record in caplog.records])
    assert "w123" not in everything
    assert reply.text not in everything
    assert reply.started.images[0].sha256.hex() not in everything


async def test_metrics_of_answers_and_of_the_engine(stub: Stub) -> None:
    before = _token_counts()
    await ask(stub, chat(PICTURE, "w1", max_new_tokens=4))
    assert _token_counts() == {stage: before.get(stage, 0) + 1 for stage in ("encoder", "prune")}
    for metric in (names.METRIC_TIME_TO_FIRST_TOKEN, names.METRIC_TIME_PER_OUTPUT_TOKEN, names.METRIC_GEN_AI_REQUEST_DURATION):
        assert sum(point.count for point in points(metric.name)) >= 1
    kinds = {point.attributes[names.ATTR_GEN_AI_TOKEN_TYPE] for point in points(names.METRIC_TOKEN_USAGE.name)}
    assert kinds == {"input", "output"}
    for metric in (names.METRIC_DECODER_WAITING, names.METRIC_DECODER_RUNNING, names.METRIC_KV_ROWS):

        def nothing_left(name: str = metric.name) -> bool:
            found = points(name)
            return bool(found) and all(point.value == 0 for point in found)

        await until(nothing_left, what=f"{metric.name} to be 0")


async def test_gaps_are_between_the_tokens_of_each_sample(stub: Stub) -> None:
    def gaps() -> int:
        return sum(point.count for point in points(names.METRIC_TOKEN_GAP.name))

    before = gaps()
    reply = await ask(stub, chat(PICTURE, "w1", n=3, temperature=1.0, max_new_tokens=5))
    assert gaps() - before == len(reply.deltas) - 3


async def test_requests_that_fail_and_that_are_cancelled_are_counted(stub: Stub) -> None:
    def ended() -> Counter[tuple[str, str | None]]:
        found = points(names.METRIC_GEN_AI_REQUEST_DURATION.name)
        keys = (names.ATTR_GEN_AI_OPERATION, names.ATTR_ERROR_TYPE)
        return Counter({tuple(point.attributes.get(key) for key in keys): point.count for point in found})

    before = ended()
    await refusal(stub, raw("<image> <image>", PICTURE))
    call = stub.Generate(chat("w1", max_new_tokens=3000))
    await call.read()
    call.cancel()
    await ask(stub, raw("w1"))
    wanted = {("text_completion", "InvalidArgument"): 1, ("chat", "Cancelled"): 1, ("text_completion", None): 1}
    await until(lambda: dict(ended() - before) == wanted, what="all three counted")


async def test_what_comes_and_goes_ends_at_nothing_however_calls_end(stub: Stub) -> None:
    """Answered, refused, late, and cancelled at any moment; with images that are new, known, and none."""
    ended = await asyncio.gather(*(_one_of_many(stub, number) for number in range(32)))
    assert set(ended) >= {"OK", "INVALID_ARGUMENT", "CANCELLED", "DEADLINE_EXCEEDED"}

    def left() -> dict[str, list[float]]:
        found = {
            metric.name: [one.value for one in points(metric.name, reader)] for reader, some in COME_AND_GO for metric in some
        }
        return {name: values for name, values in found.items() if not values or any(values)}

    await until(lambda: not left(), what="everything back at 0")
    counted = [
        sum(count for point in points(metric.name) if (count := getattr(point, field)) and _is_question(point))
        for metric, field in ((names.METRIC_REQUESTS, "value"), (names.METRIC_REQUEST_DURATION, "count"))
    ]
    assert counted[0] == counted[1] >= ended.count("OK")


def _is_question(point: Any) -> bool:
    return bool(point.attributes[names.ATTR_RPC_METHOD] == "/vscan.v1.Decoder/Generate")


async def _one_of_many(stub: Stub, number: int) -> str:
    """A question that ends as its number says; returns the status."""
    request = chat(png(number), "w1", max_new_tokens=6, n=1 + number % 2) if number % 3 else chat("w1", max_new_tokens=40)
    bad, late, leaves = number % 8 == 5, number % 8 == 6, number % 8 == 7
    call = stub.Generate(chat(b"no image", "w1") if bad else request, timeout=0.005 * number if late else 60)
    try:
        for taken in itertools.count():
            if leaves and taken == number // 8:
                call.cancel()
            if await call.read() is grpc.aio.EOF:  # type: ignore[attr-defined]
                return "OK"
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except asyncio.CancelledError:
        return "CANCELLED"
    raise AssertionError("a stream ends")


async def test_images_are_counted_by_where_they_were(stub: Stub) -> None:
    def places() -> Counter[tuple[str, str]]:
        found = points(names.METRIC_IMAGES.name)
        return Counter(
            {(point.attributes[names.ATTR_MEDIA], point.attributes[names.ATTR_PLACE]): point.value for point in found}
        )

    request = chat(OTHER_PICTURE, OTHER_PICTURE, "w1")
    before = places()
    await ask(stub, request)
    await ask(stub, request)
    assert places() - before == {("image", "encoded"): 1, ("image", "shared"): 1, ("image", "memory"): 2}


async def test_a_second_question_about_a_picture_runs_fewer_rows(stub: Stub) -> None:
    def reused() -> float:
        return float(sum(point.value for point in points(names.METRIC_KV_REUSED_ROWS.name)))

    await ask(stub, chat(PICTURE, "w1 w2 w3"))
    before = reused()
    await ask(stub, chat(PICTURE, "w4 w5 w6"))
    await until(lambda: reused() >= before + 96, what="the picture's rows to be found again")


def _token_counts() -> dict[str, int]:
    return {point.attributes[names.ATTR_STAGE]: point.count for point in points(names.METRIC_VISUAL_TOKENS_AFTER.name)}
