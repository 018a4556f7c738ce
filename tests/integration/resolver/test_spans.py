"""Resolving is one span with the lookups and the encoder's spans below it, in one trace."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.redis_server import RedisServer
from tests.support.resolving import ANYTHING, inputs, resolver, small_encoder
from tests.support.small_encoder import image_bytes
from vscan.telemetry import names


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    span_id: int = span.context.span_id
    return span_id


async def test_the_tree_of_a_cold_and_a_repeated_image(redis_server: RedisServer) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with (
        small_encoder(redis_server) as (_, address),
        resolver(redis_server, address, tracer_provider=provider) as one,
    ):
        exporter.clear()  # what was learned before has traces of its own
        images = inputs(image_bytes("span 1"), image_bytes("span 2"))
        await one.resolve(images, ANYTHING, "default")
        cold = exporter.get_finished_spans()
        exporter.clear()
        await one.resolve(images, ANYTHING, "default")
        (repeated,) = exporter.get_finished_spans()
    *children, resolve = cold
    assert resolve.name == repeated.name == names.SPAN_RESOLVE_IMAGES
    assert {parent_of(span) for span in children} == {id_of(resolve)}
    assert sorted(span.name for span in children) == [
        "/vscan.v1.VisionEncoder/Encode",
        "/vscan.v1.VisionEncoder/Encode",
        names.SPAN_REDIS_GET,
    ]
    assert dict(resolve.attributes or {}) == {
        names.ATTR_IMAGES: 2,
        names.ATTR_VIDEOS: 0,
        names.ATTR_PLACES: ("encoded", "encoded"),
    }
    assert dict(repeated.attributes or {}) == dict(resolve.attributes or {}) | {names.ATTR_PLACES: ("memory", "memory")}
