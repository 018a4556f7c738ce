"""The names are well formed and unique, and every one of them can be measured with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from vscan.telemetry import names
from vscan.telemetry.metrics import (
    MAKERS,
    AdmissionMetrics,
    CacheMetrics,
    DecoderMetrics,
    EncoderMetrics,
    ProcessMetrics,
    RpcMetrics,
    TokenMetrics,
    counter,
    histogram,
)
from vscan.telemetry.names import Kind, Metric

ROOT = Path(__file__).parents[3]

ATTRIBUTES = {name: value for name, value in vars(names).items() if name.startswith("ATTR_")}
SPANS = {name: value for name, value in vars(names).items() if name.startswith("SPAN_")}
METRICS = names.all_metrics()
UCUM = {"ms", "s", "By"}


def test_names_are_unique() -> None:
    for group in (list(ATTRIBUTES.values()), list(SPANS.values()), [metric.name for metric in METRICS]):
        assert len(group) == len(set(group))


@pytest.mark.parametrize("name", [*ATTRIBUTES.values(), *SPANS.values(), *(metric.name for metric in METRICS)])
def test_a_name_is_lower_case_with_dots(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", name)


def test_the_spans_of_the_design_are_named() -> None:
    assert set(SPANS.values()) >= {
        "ask",
        "generate",
        "resolve_images",
        "redis.get",
        "encode",
        "queue",
        "decode_image",
        "vit",
        "reduce",
        "cache_put",
        "prefill",
        "prune",
        "decode",
        "vit_batch",
    }


def conventions(module: object) -> set[str]:
    return {value for value in vars(module).values() if isinstance(value, str)}


def test_what_is_called_gen_ai_is_in_the_conventions() -> None:
    attributes = {value for value in ATTRIBUTES.values() if value.startswith("gen_ai.")}
    assert attributes <= conventions(gen_ai_attributes)
    metrics = {metric.name for metric in METRICS if metric.name.startswith("gen_ai.")}
    assert metrics <= conventions(gen_ai_metrics)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_unit_and_a_description(metric: Metric) -> None:
    assert metric.unit in UCUM or re.fullmatch(r"\{\w+\}", metric.unit)
    assert metric.description
    assert (metric.bounds is not None) == (metric.kind is Kind.HISTOGRAM)
    assert metric.bounds is None or list(metric.bounds) == sorted(set(metric.bounds))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_can_be_made(metric: Metric) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("t")
    instrument = MAKERS[metric.kind](meter, metric)
    method = {Kind.HISTOGRAM: "record", Kind.GAUGE: "set"}.get(metric.kind, "add")
    getattr(instrument, method)(1)
    assert measured(reader).keys() == {metric.name}


def test_a_metric_is_not_made_as_another_kind() -> None:
    meter = MeterProvider().get_meter("t")
    with pytest.raises(TypeError):
        counter(meter, names.METRIC_CACHE_BYTES)
    with pytest.raises(TypeError):
        histogram(meter, names.METRIC_REQUESTS)


def measured(reader: InMemoryMetricReader) -> dict[str, list[object]]:
    """Data points by metric."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_every_metric_is_measured_by_one_of_the_groups() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("t")
    rpc, tokens, cache = RpcMetrics(meter), TokenMetrics(meter), CacheMetrics(meter)
    encoder, decoder, process = EncoderMetrics(meter), DecoderMetrics(meter), ProcessMetrics(meter)
    process.holds(tasks=1, threads=1, descriptors=1)
    process.lag(1.0)
    rpc.began("/m")
    rpc.ended("/m", "OK", 1.0)
    AdmissionMetrics(meter).refused("rate", tenant="shop")
    tokens.record("encoder", 576, 192)
    cache.looked_up("memory", "hit")
    cache.written("redis", "ok")
    cache.rejected("tag")
    cache.failed("get", "TimeoutError")
    cache.holds(1, 10)
    cache.left_alone("write", True)
    cache.leased("led")
    encoder.waiting(1)
    encoder.waited(2.0)
    encoder.batch(images=2, tiles=3, vit_ms=4.0)
    encoder.shared()
    decoder.waiting(1)
    decoder.running(1)
    decoder.waited(1.0)
    decoder.first_token(5.0)
    decoder.finished(input_tokens=11, output_tokens=3, longest_tokens=3, decode_ms=20.0, total_ms=30.0)
    decoder.kv(0, rows=11, blocks=1, used_bytes=1000, idle_bytes=0)
    decoder.kv_pages(held=3, idle=2, free=5)
    decoder.reused(16)
    decoder.preempted(1)
    assert measured(reader).keys() == {metric.name for metric in METRICS}


def test_times_of_the_conventions_are_in_seconds_and_per_token() -> None:
    reader = InMemoryMetricReader()
    decoder = DecoderMetrics(MeterProvider([reader]).get_meter("t"))
    decoder.first_token(250.0)
    decoder.finished(input_tokens=1, output_tokens=9, longest_tokens=5, decode_ms=400.0, total_ms=650.0)
    # These have no time between tokens.
    decoder.finished(input_tokens=1, output_tokens=1, longest_tokens=1, decode_ms=0.0, total_ms=250.0)
    points = measured(reader)
    assert points[names.METRIC_TIME_TO_FIRST_TOKEN.name][0].sum == pytest.approx(0.25)  # type: ignore[attr-defined]
    per_token = points[names.METRIC_TIME_PER_OUTPUT_TOKEN.name][0]
    assert (per_token.count, per_token.sum) == (1, pytest.approx(0.1))  # type: ignore[attr-defined]
    assert points[names.METRIC_GEN_AI_REQUEST_DURATION.name][0].sum == pytest.approx(0.9)  # type: ignore[attr-defined]


def test_every_name_is_used() -> None:
    """A name that nothing emits is a promise to whoever builds a dashboard."""
    folders = ("vscan", "encoder_service", "decoder_service", "client")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "names.py")
    code = "\n".join(path.read_text() for path in files)
    stated = [name for name in vars(names) if name.startswith(("SPAN_", "ATTR_", "METRIC_"))]
    assert len(stated) > 50
    assert [name for name in stated if f"names.{name}" not in code] == []
