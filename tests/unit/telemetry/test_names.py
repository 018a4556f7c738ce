"""The names are well formed and unique, and every one of them can be measured with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from prometheus_client import CollectorRegistry

from vscan.telemetry import names
from vscan.telemetry.decoder_metrics import AnswerMetrics, EngineMetrics
from vscan.telemetry.metrics import (
    MAKERS,
    AdmissionMetrics,
    CacheMetrics,
    CertificateMetrics,
    EncoderMetrics,
    ProcessMetrics,
    ReadyMetrics,
    RpcMetrics,
    TokenMetrics,
    counter,
    histogram,
)
from vscan.telemetry.names import Kind, Metric
from vscan.telemetry.prometheus_names import label_name, series_names

ROOT = Path(__file__).parents[3]

ATTRIBUTES = {name: value for name, value in vars(names).items() if name.startswith("ATTR_")}
SPANS = {name: value for name, value in vars(names).items() if name.startswith("SPAN_")}
METRICS = names.all_metrics()
UCUM = {"ms", "s", "By", "1"}


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


def measure_everything(meter: Meter) -> None:
    """A point of every metric, with every attribute that it may have."""
    ReadyMetrics(meter).ready(True)
    CertificateMetrics(meter).ends(2e9)
    rpc, tokens, cache = RpcMetrics(meter), TokenMetrics(meter), CacheMetrics(meter)
    encoder, process = EncoderMetrics(meter), ProcessMetrics(meter)
    engine, answers = EngineMetrics(meter), AnswerMetrics(meter, model="m")
    process.holds(tasks=1, threads=1, descriptors=1)
    process.lag(1.0)
    rpc.began("/m")
    rpc.ended("/m", "OK", 1.0)
    AdmissionMetrics(meter).refused("/vscan.v1.Decoder/Generate", "rate", tenant="shop")
    tokens.record("encoder", 576, 192)
    cache.looked_up("memory", "hit")
    cache.written("redis", "ok")
    cache.rejected("tag")
    cache.asked("get", 1.5)
    cache.asked("get", 1.5, "TimeoutError")
    cache.failed("get", "TimeoutError")
    cache.holds(1, 10)
    cache.left_alone("write", True)
    cache.leased("led")
    encoder.queue("image", 8)
    encoder.waiting("image", 1)
    encoder.waited(2.0)
    encoder.batch(images=2, tiles=3, vit_ms=4.0, pass_ms=5.0)
    encoder.shared()
    engine.capacity(running=8, waiting=16)
    engine.waiting(1)
    engine.waited(1.0)
    engine.running(1)
    engine.stepped(2.5, rows=40, sequences=3)
    engine.kv(0, rows=11, blocks=1, used_bytes=1000, idle_bytes=0)
    engine.kv_pages(held=3, idle=2, free=5)
    engine.reused(16)
    engine.preempted(1)
    answers.image("video", "redis")
    answers.first_token("chat", 5.0)
    answers.given_up("chat", 5.0)
    answers.next_token(20.0)
    answers.finished("chat", input_tokens=11, output_tokens=3, longest_tokens=3, decode_ms=20.0, total_ms=30.0)
    answers.failed("chat", "Cancelled", 30.0)


def test_every_metric_is_measured_by_one_of_the_groups() -> None:
    reader = InMemoryMetricReader()
    measure_everything(MeterProvider([reader]).get_meter("t"))
    assert measured(reader).keys() == {metric.name for metric in METRICS}


def test_prometheus_calls_them_as_said() -> None:
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry, scope_info_enabled=False)
    measure_everything(MeterProvider([reader]).get_meter("t"))
    families = [family for family in registry.collect() if family.name != "target"]
    assert {sample.name for family in families for sample in family.samples} == set[str]().union(*map(series_names, METRICS))
    wanted = {
        series: {label_name(one) for one in (*metric.attributes, *metric.sometimes)}
        for metric in METRICS
        for series in series_names(metric)
    }
    for family in families:
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == wanted[sample.name], sample.name


def test_a_unit_that_prometheus_has_no_name_for_is_refused() -> None:
    with pytest.raises(ValueError, match="furlong"):
        series_names(Metric("vscan.distance", "furlong", Kind.COUNTER, "How far"))


def test_times_of_the_conventions_are_in_seconds_and_per_token() -> None:
    reader = InMemoryMetricReader()
    answers = AnswerMetrics(MeterProvider([reader]).get_meter("t"), model="m")
    answers.first_token("chat", 250.0)
    answers.given_up("chat", 3500.0)
    answers.finished("chat", input_tokens=1, output_tokens=9, longest_tokens=5, decode_ms=400.0, total_ms=650.0)
    # These have no time between tokens.
    answers.finished("chat", input_tokens=1, output_tokens=1, longest_tokens=1, decode_ms=0.0, total_ms=250.0)
    points = measured(reader)
    assert points[names.METRIC_TIME_TO_FIRST_TOKEN.name][0].sum == pytest.approx(0.25)  # type: ignore[attr-defined]
    assert points[names.METRIC_GIVEN_UP.name][0].sum == pytest.approx(3.5)  # type: ignore[attr-defined]
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
