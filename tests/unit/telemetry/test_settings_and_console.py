"""The settings of telemetry, and spans on a terminal."""

from __future__ import annotations

import io

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode
from pydantic import ValidationError

from vscan.telemetry.console import ConsoleSpanExporter, describe
from vscan.telemetry.sampling import service_sampler
from vscan.telemetry.settings import TelemetrySettings

DESCRIBE = "/vscan.v1.VisionEncoder/Describe"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:4317", "https://collector.example:4317"])
def test_an_endpoint_says_whether_it_is_plaintext(endpoint: str) -> None:
    assert TelemetrySettings(otlp_endpoint=endpoint).otlp_endpoint == endpoint


@pytest.mark.parametrize(
    "bad",
    [
        {"otlp_endpoint": "127.0.0.1:4317"},
        {"metrics_bind": "9090"},
        {"trace_sample_ratio": -0.1},
        {"trace_sample_ratio": float("nan")},
        {"log_level": "loud"},
        {"log_format": "xml"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TelemetrySettings(**bad)  # type: ignore[arg-type]


class Kept(SpanExporter):  # type: ignore[misc]
    """Keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def test_a_span_in_one_line() -> None:
    stream, kept = io.StringIO(), Kept()
    provider = TracerProvider(resource=Resource.create({"service.name": "vscan-decoder"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(stream)))
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("generate") as outer:
        attributes = {"vscan.prefill.segment_rows": (11, 7), "vscan.ratio": 1 / 3, "rpc.system": "grpc"}
        with tracer.start_as_current_span("prefill", attributes=attributes):
            pass
        outer.set_status(StatusCode.ERROR)
    inner_line, outer_line = stream.getvalue().splitlines()
    trace_id, outer_id = f"{outer.get_span_context().trace_id:032x}", f"{outer.get_span_context().span_id:016x}"
    assert inner_line.startswith(f"trace {trace_id[:8]} vscan-decoder  prefill ")
    assert f" < {outer_id[:8]} " in inner_line
    assert inner_line.endswith(" ms  segment_rows=11,7 ratio=0.3333")
    assert f"generate {outer_id[:8]}  " in outer_line
    assert outer_line.endswith(" ERROR")
    assert describe(kept.spans[0]) == inner_line


def recorded(name: str, ratio: float, *, under: str | None = None) -> bool:
    tracer = TracerProvider(sampler=service_sampler(ratio)).get_tracer("t")
    if under is None:
        return bool(tracer.start_span(name).is_recording())
    with tracer.start_as_current_span(under):
        return bool(tracer.start_span(name).is_recording())


def test_the_ratio_decides_about_new_traces() -> None:
    assert recorded("generate", 1.0)
    assert not recorded("generate", 0.0)


def test_a_poll_begins_no_trace_but_belongs_to_one() -> None:
    assert not recorded(DESCRIBE, 1.0)
    assert recorded(DESCRIBE, 1.0, under="generate")


def test_what_is_not_recorded_has_a_trace_id_all_the_same() -> None:
    span = TracerProvider(sampler=service_sampler(0.0)).get_tracer("t").start_span(DESCRIBE)
    assert span.get_span_context().is_valid
