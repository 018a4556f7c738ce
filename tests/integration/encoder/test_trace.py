"""The spans and the metrics of one request, and of a batch that served several."""

import asyncio
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.encoder import png, running_encoder
from tests.support.until import until
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry

STAGES = {"decode_image", "queue", "vit", "reduce", "cache_put"}


class Watched:
    """Telemetry whose spans and metrics can be read."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(provider, MeterProvider([self._reader]))

    def spans(self, name: str) -> list[ReadableSpan]:
        """Finished spans of a name, oldest first."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def clear(self) -> None:
        """Forgets the spans."""
        self._exporter.clear()

    def metrics(self) -> dict[str, list[Any]]:
        """Every metric's points."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def test_a_cold_request_is_one_tree_and_a_repeated_one_runs_nothing() -> None:
    watched = Watched()
    async with running_encoder(watched.telemetry) as encoder:
        watched.clear()  # the warm-up's
        await encoder.encode(png(1))
        await until(lambda: bool(watched.spans("encode")))
        (encode,) = watched.spans("encode")
        for stage in STAGES:
            (span,) = watched.spans(stage)
            assert span.parent is not None, stage
            assert span.parent.span_id == encode.context.span_id, stage
            assert span.context.trace_id == encode.context.trace_id, stage
            assert encode.start_time <= span.start_time <= span.end_time <= encode.end_time, stage
        assert encode.attributes is not None
        assert encode.attributes[names.ATTR_PLACE] == "encoded"
        assert encode.attributes[names.ATTR_TOKENS_BEFORE] == 576
        assert encode.attributes[names.ATTR_TOKENS_AFTER] == 96
        assert len(str(encode.attributes[names.ATTR_IMAGE_DIGEST])) == 8

        watched.clear()
        await encoder.encode(png(1))
        await until(lambda: bool(watched.spans("encode")))
        assert not any(watched.spans(stage) for stage in STAGES)
        attributes = watched.spans("encode")[0].attributes
        assert attributes is not None
        assert attributes[names.ATTR_PLACE] == "memory"


async def test_a_batch_links_to_every_request_it_served_and_they_link_back() -> None:
    watched = Watched()
    async with running_encoder(watched.telemetry, max_batch_tiles=3, batch_wait_ms=3_600_000) as encoder:
        watched.clear()
        await asyncio.gather(*(encoder.encode(png(seed)) for seed in range(3)))
        await until(lambda: len(watched.spans("encode")) == 3)
    (batch,) = watched.spans("vit_batch")
    assert batch.parent is None
    assert {link.context.span_id for link in batch.links} == {span.context.span_id for span in watched.spans("encode")}
    assert batch.attributes is not None
    assert batch.attributes[names.ATTR_BATCH_IMAGES] == batch.attributes[names.ATTR_BATCH_TILES] == 3
    for span in watched.spans("vit"):
        assert [link.context.span_id for link in span.links] == [batch.context.span_id]


async def test_metrics_tell_waits_batches_and_tokens() -> None:
    watched = Watched()
    async with running_encoder(watched.telemetry) as encoder:
        await encoder.encode(png(1))
        await encoder.encode(png(1))
    metrics = watched.metrics()
    assert [waiting.value for waiting in metrics["vscan.encoder.waiting"]] == [0, 0], "images and videos"
    (waits,) = metrics["vscan.encoder.queue_wait"]
    assert waits.count == 1
    for name in ("vscan.encoder.batch.images", "vscan.encoder.batch.tiles", "vscan.encoder.vit"):
        (passes,) = metrics[name]
        assert passes.count == 2, "the warm-up and the image"
    (after,) = metrics["vscan.visual_tokens.after"]
    assert (after.count, after.sum) == (1, 96)


async def test_a_refused_image_marks_its_spans() -> None:
    watched = Watched()
    async with running_encoder(watched.telemetry) as encoder:
        watched.clear()
        await encoder.refusal(encoder.encode(b"not an image"))
        await until(lambda: bool(watched.spans("encode")))
        (decode,) = watched.spans("decode_image")
        assert not decode.status.is_ok
        assert not watched.spans("vit")
