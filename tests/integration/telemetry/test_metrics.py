"""Metrics as an owner sees them: over HTTP for Prometheus, and over OTLP."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.otlp_collector import OtlpCollector
from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import ResourceExhausted, StartupError
from vscan.telemetry import names
from vscan.telemetry.decoder_metrics import AnswerMetrics, EngineMetrics
from vscan.telemetry.metrics import EncoderMetrics, histogram
from vscan.telemetry.process import watched_process
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry


@contextmanager
def served(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[Telemetry, str]]:
    """Telemetry with an endpoint for Prometheus on a free port, and its URL."""
    with caplog.at_level("INFO", logger="vscan.telemetry.prometheus"):
        telemetry = setup_telemetry("vscan-decoder", TelemetrySettings(metrics_bind="127.0.0.1:0"))
    match = re.search(r"http://\S+", caplog.messages[-1])
    assert match is not None
    yield telemetry, match.group()
    telemetry.shutdown()


def scrape(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples by name and labels, without the labels that say which library measured."""
    with urllib.request.urlopen(url, timeout=20) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(pair for pair in sample.labels.items() if not pair[0].startswith("otel_"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**pairs: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairs.items())


async def test_calls_are_counted_by_method_and_status(caplog: pytest.LogCaptureFixture) -> None:
    words_ms: list[float] = []  # of each call, from its first word to its last

    async def before_word(word: str) -> None:
        if word == "full":
            raise ResourceExhausted("full", retry_delay_ms=1)
        words_ms.append(time.perf_counter() * 1000)

    with served(caplog) as (telemetry, url):
        async with serving_decoder(ToyDecoder(before_word), telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
            began = time.perf_counter()
            for text in ("one", "two", "three"):
                async for _event in stub.Generate(raw(f"{text} four five six")):
                    pass
            outside_ms = (time.perf_counter() - began) * 1000
            await failure(stub.Generate(raw("full")))
        samples = await asyncio.to_thread(scrape, url)
    method = "/vscan.v1.Decoder/Generate"
    assert samples["vscan_requests_total", labels(rpc_method=method, vscan_status="OK")] == 3
    assert samples["vscan_requests_total", labels(rpc_method=method, vscan_status="RESOURCE_EXHAUSTED")] == 1
    assert samples["vscan_request_duration_milliseconds_count", labels(rpc_method=method, vscan_status="OK")] == 3
    inside_ms = sum(words_ms[at + 3] - words_ms[at] for at in (0, 4, 8))
    taken_ms = samples["vscan_request_duration_milliseconds_sum", labels(rpc_method=method, vscan_status="OK")]
    assert inside_ms <= taken_ms <= outside_ms
    assert samples["vscan_requests_running", labels(rpc_method=method)] == 0


def test_what_autoscaling_reads_is_there_under_these_names(caplog: pytest.LogCaptureFixture) -> None:
    with served(caplog) as (telemetry, url):
        encoder, engine = EncoderMetrics(telemetry.meter), EngineMetrics(telemetry.meter)
        encoder.waited(3.0)
        engine.waiting(2)
        engine.kv(1, rows=7, blocks=1, used_bytes=4096, idle_bytes=0)
        engine.kv_pages(held=3, idle=2, free=5)
        AnswerMetrics(telemetry.meter, model="m").first_token("chat", 120.0)
        samples = scrape(url)
    assert samples["vscan_encoder_queue_wait_milliseconds_count", labels()] == 1
    assert samples["vscan_decoder_waiting", labels()] == 2
    assert samples["vscan_decoder_kv_used_bytes", labels(vscan_segment="1")] == 4096
    assert samples["vscan_decoder_kv_pages", labels(vscan_page_state="held")] == 3
    of_model = labels(gen_ai_operation_name="chat", gen_ai_provider_name="vscan", gen_ai_request_model="m")
    assert samples["gen_ai_server_time_to_first_token_seconds_sum", of_model] == pytest.approx(0.12)
    assert any(name == "process_resident_memory_bytes" for name, _ in samples)


def test_buckets_are_the_named_ones(caplog: pytest.LogCaptureFixture) -> None:
    with served(caplog) as (telemetry, url):
        histogram(telemetry.meter, names.METRIC_ENCODER_QUEUE_WAIT).record(3.0)
        samples = scrape(url)
    buckets = {dict(pairs)["le"] for name, pairs in samples if name == "vscan_encoder_queue_wait_milliseconds_bucket"}
    bounds = names.METRIC_ENCODER_QUEUE_WAIT.bounds
    assert bounds is not None
    assert {float(bound) for bound in buckets} == {*bounds, float("inf")}


def test_two_services_in_one_process_keep_their_metrics_apart(caplog: pytest.LogCaptureFixture) -> None:
    with served(caplog) as (one, one_url), served(caplog) as (_, other_url):
        EngineMetrics(one.meter).waiting(5)
        assert ("vscan_decoder_waiting", labels()) in scrape(one_url)
        assert ("vscan_decoder_waiting", labels()) not in scrape(other_url)


def test_the_port_is_free_after_shutdown_and_taken_before(caplog: pytest.LogCaptureFixture) -> None:
    with served(caplog) as (_, url):
        address = url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(StartupError, match=f"cannot serve metrics on {address}: Address already in use"):
            setup_telemetry("vscan-encoder", TelemetrySettings(metrics_bind=address))
    setup_telemetry("vscan-encoder", TelemetrySettings(metrics_bind=address)).shutdown()


@pytest.mark.parametrize("wanted", [True, False])
def test_metrics_go_to_the_collector_where_wanted(wanted: bool) -> None:
    with OtlpCollector() as collector:
        telemetry = setup_telemetry("x", TelemetrySettings(otlp_endpoint=collector.endpoint, otlp_metrics=wanted))
        EngineMetrics(telemetry.meter).waiting(1)
        telemetry.shutdown()
        assert (names.METRIC_DECODER_WAITING.name in collector.metric_names) is wanted


def test_without_exporters_nothing_is_sent_and_spans_have_ids() -> None:
    telemetry = setup_telemetry("x", TelemetrySettings())
    with telemetry.tracer.start_as_current_span("s") as span:
        assert span.get_span_context().is_valid
    EngineMetrics(telemetry.meter).waiting(1)
    telemetry.shutdown()


async def test_what_a_process_holds_is_measured_while_it_serves(caplog: pytest.LogCaptureFixture) -> None:
    def held(url: str) -> dict[str, float]:
        return {name: scrape(url).get((f"vscan_process_{name}", labels()), 0) for name in ("tasks", "threads", "descriptors")}

    with served(caplog) as (telemetry, url):
        many = [asyncio.create_task(asyncio.Event().wait()) for _ in range(50)]
        async with watched_process(telemetry.meter):

            async def lag_was_measured() -> bool:
                samples = await asyncio.to_thread(scrape, url)
                return samples.get(("vscan_loop_lag_milliseconds_count", labels()), 0) > 0

            await until(lag_was_measured)
            with_many = await asyncio.to_thread(held, url)
            assert with_many["tasks"] > len(many)
            assert with_many["threads"] >= 2
            assert with_many["descriptors"] >= 3
            for task in many:
                task.cancel()
            await asyncio.gather(*many, return_exceptions=True)

            async def fewer() -> bool:
                return (await asyncio.to_thread(held, url))["tasks"] <= with_many["tasks"] - len(many)

            await until(fewer)
