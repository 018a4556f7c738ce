"""Two real services under load send every metric and span that is named, and nothing else: to Prometheus and over OTLP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

import vscan
from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, raw, refusal
from tests.support.caches import raw_client
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.encoder import encode_request, encoder_channel, encoder_stub
from tests.support.identities import IdentitiesFile
from tests.support.otlp_collector import CollectedMetric, CollectedSpan, OtlpCollector
from tests.support.prometheus import Figures, read_figures
from tests.support.redis_server import RedisServer, free_port
from tests.support.stack import ProcessStack, process_stack
from tests.support.until import until
from vscan.telemetry import names
from vscan.telemetry.catalogue import LABELS, LOG_FIELDS, SPANS
from vscan.telemetry.names import Kind, Metric, all_metrics
from vscan.telemetry.prometheus_names import family_name, label_name, series_names
from vscan.telemetry.setup import setup_tracing
from vscan.v1 import encoder_pb2
from vscan_client import AsyncClient

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICES = ("encoder", "decoder")
NOT_OURS = ("process_", "python_", "target_info")  # of prometheus_client, and of OpenTelemetry's exporter
KINDS = {Kind.COUNTER: "sum", Kind.UP_DOWN: "up_down", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}
RESOURCE = {"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-7,service.name=other"}
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "250", "OTEL_BSP_SCHEDULE_DELAY": "100"}
BATCH_WAIT_MS = 50
# All but what a server without TLS has not: test_tls_rotation.py.
SENT = [metric for metric in all_metrics() if metric is not names.METRIC_CERTIFICATE_EXPIRY]
PLACES = 4  # calls of the tenant at once
LONG_TOKENS = 220  # of two such answers the KV cache has room for one and a half
KV_BYTES = 60 * 16 * 3 * 512


@dataclass(frozen=True)
class Seen:
    """What there was to be seen, after both processes have ended in order."""

    figures: dict[str, Figures]
    metrics: list[CollectedMetric]
    spans: list[CollectedSpan]
    log_lines: dict[str, list[dict[str, Any]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    folder = tmp_path_factory.mktemp("services")
    ports = {service: free_port() for service in SERVICES}
    with RedisServer() as redis, OtlpCollector() as collector:
        with deployed(folder, redis, collector, ports) as (stack, token):
            await Traffic(stack, redis, collector, token, ports).make()
            figures = {service: await asyncio.to_thread(read_figures, port) for service, port in ports.items()}
        lines = {service: json_lines(folder / f"{service}.log") for service in SERVICES}
        yield Seen(figures, collector.metrics, collector.spans, lines)


@contextmanager
def deployed(
    folder: Path, redis: RedisServer, collector: OtlpCollector, ports: dict[str, int]
) -> Iterator[tuple[ProcessStack, str]]:
    identities = IdentitiesFile(folder / "identities")
    token = identities.add("somebody")
    identities.limit("default", max_concurrent_calls=PLACES)
    both = {
        "otlp_endpoint": collector.endpoint,
        "log_format": "json",
        "redis_breaker_faults": 2,
        "redis_breaker_pause_ms": 50,
    }
    encoder = both | {"metrics_bind": f"127.0.0.1:{ports['encoder']}", "batch_wait_ms": BATCH_WAIT_MS}
    decoder = both | {
        "metrics_bind": f"127.0.0.1:{ports['decoder']}",
        "identities_file": identities.path,
        "kv_cache_bytes": KV_BYTES,
        "kv_block_rows": 16,
        "encoder_retry_seconds": 0.05,
    }
    with process_stack(
        folder, checkpoint=PARITY_CHECKPOINT, redis=redis, encoder=encoder, decoder=decoder, environment=OFTEN | RESOURCE
    ) as stack:
        yield stack, token


class Traffic:
    """All that a service may meet, as far as one deployment can be brought to it."""

    def __init__(
        self, stack: ProcessStack, redis: RedisServer, collector: OtlpCollector, token: str, ports: dict[str, int]
    ) -> None:
        self._stack = stack
        self._redis = redis
        self._collector = collector
        self._token = token
        self._ports = ports
        self._budgets = count(20)

    async def make(self) -> None:
        """Ends once all of it has left its mark."""
        async with (
            decoder_stub(self._stack.decoder_address) as self._decoder,
            encoder_channel(self._stack.encoder_address) as channel,
        ):
            self._encoder = encoder_stub(channel)
            await self._answers()
            await self._bad_requests()
            await until(self._all_have_left, what="all calls ended")
            await until(self._preempted, what="a request preempted")
            await until(self._shared, what="an encoding shared")
            await until(self._given_up, what="a caller whose time was up before the first token")
            await self._rejected_entry()
            await self._redis_away()

    def _of(self, **call: Any) -> dict[str, Any]:
        return {"metadata": (("authorization", f"Bearer {self._token}"),), "timeout": 60, **call}

    def _new(self) -> Any:
        """A question about what no cache has."""
        request = chat(PICTURE, "w1")
        request.reduction.budget.tokens_per_tile = next(self._budgets)
        return request

    async def _answers(self) -> None:
        telemetry = setup_tracing("vscan-client", otlp_endpoint=self._collector.endpoint)
        async with AsyncClient(
            server=self._stack.decoder_address, token=self._token, tracer_provider=telemetry.tracer_provider
        ) as client:
            await client.ask(PICTURE, "w1 w2")
        await asyncio.to_thread(telemetry.shutdown)
        await ask(self._decoder, chat(PICTURE, "w3"), **self._of())
        await ask(self._decoder, raw("<image> w1", PICTURE, n=2), **self._of())
        await self._encoder.Encode(encode_request(OTHER_PICTURE))
        await self._encoder.Lookup(encoder_pb2.LookupRequest(sha256=[bytes(32)]))

    async def _bad_requests(self) -> None:
        await refusal(self._decoder, raw("<image> <image>", PICTURE), **self._of())
        await refusal(self._decoder, chat("w1"), timeout=60)  # who calls?
        many = [ask(self._decoder, chat("w1", max_new_tokens=50), **self._of()) for _ in range(PLACES + 4)]
        assert any(isinstance(each, Exception) for each in await asyncio.gather(*many, return_exceptions=True))
        call = self._decoder.Generate(chat("w1", max_new_tokens=LONG_TOKENS), **self._of())
        await call.read()
        call.cancel()

    async def _all_have_left(self) -> bool:
        return await self._total("decoder", names.METRIC_RUNNING_REQUESTS) == 0

    async def _preempted(self) -> bool:
        both = [ask(self._decoder, chat(f"w{word}", max_new_tokens=LONG_TOKENS), **self._of()) for word in (5, 6)]
        await asyncio.gather(*both)
        return await self._total("decoder", names.METRIC_PREEMPTIONS) > 0

    async def _shared(self) -> bool:
        request = self._new()
        await asyncio.gather(*(ask(self._decoder, request, **self._of()) for _ in range(PLACES // 2)))
        await until(self._all_have_left, what="all calls ended")
        return await self._total("encoder", names.METRIC_ENCODER_SHARED) > 0

    async def _given_up(self) -> bool:
        """An encoder waits for company longer than this caller waits for its answer."""
        await refusal(self._decoder, self._new(), **self._of(timeout=BATCH_WAIT_MS / 2000))
        figures = await asyncio.to_thread(read_figures, self._ports["decoder"])
        return figures.total(f"{family_name(names.METRIC_GIVEN_UP)}_count") > 0

    async def _rejected_entry(self) -> None:
        async with raw_client(self._redis) as client:
            for name in await client.keys("vscan:vt:*"):
                await client.set(name, b"not an entry")
        await ask(self._decoder, chat(OTHER_PICTURE, "w1"), **self._of())

    async def _redis_away(self) -> None:
        self._redis.kill()
        for _ in range(3):
            await ask(self._decoder, self._new(), **self._of())
        self._redis.start()

        async def used_again() -> bool:
            await ask(self._decoder, self._new(), **self._of())
            left = [await self._total(service, names.METRIC_REDIS_LEFT_ALONE) for service in SERVICES]
            return left == [0, 0]

        await until(used_again, what="Redis used again")

    async def _total(self, service: str, metric: Metric) -> float:
        (series,) = series_names(metric)
        return (await asyncio.to_thread(read_figures, self._ports[service])).total(series)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of requests."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "vscan.request"]


def labels_wanted(metric: Metric) -> set[str]:
    return {*metric.attributes, *metric.sometimes}


async def test_prometheus_finds_every_metric_and_no_other(seen: Seen) -> None:
    found = {name for figures in seen.figures.values() for name, _, _ in figures.samples if not name.startswith(NOT_OURS)}
    assert found == set[str]().union(*(series_names(metric) for metric in SENT))


async def test_prometheus_finds_the_labels_that_are_named(seen: Seen) -> None:
    samples = [sample for figures in seen.figures.values() for sample in figures.samples]
    for metric in all_metrics():
        keys = [labels.keys() for name, labels, _ in samples if name in series_names(metric)]
        own = {key for each in keys for key in each if key != "le" and not key.startswith("otel_scope_")}
        assert own == {label_name(name) for name in labels_wanted(metric)}, metric.name


async def test_every_metric_has_counted_something(seen: Seen) -> None:
    """Beside gauges and what comes and goes: these are 0 when all is well."""
    samples = [sample for figures in seen.figures.values() for sample in figures.samples]
    for metric in all_metrics():
        if metric.kind in (Kind.COUNTER, Kind.HISTOGRAM):
            series = family_name(metric) + ("_count" if metric.kind is Kind.HISTOGRAM else "_total")
            assert sum(value for name, _, value in samples if name == series) > 0, metric.name


async def test_otlp_carries_every_metric_as_it_is_named(seen: Seen) -> None:
    ours = [metric for metric in seen.metrics if metric.service.startswith("vscan-")]
    named = {metric.name: metric for metric in SENT}
    assert {metric.name for metric in ours} == named.keys()
    for sent in ours:
        metric = named[sent.name]
        assert (sent.unit, sent.kind) == (metric.unit, KINDS[metric.kind]), sent.name
        for attributes in sent.attributes:
            assert set(metric.attributes) <= attributes.keys() <= labels_wanted(metric), sent.name


async def test_attributes_have_the_values_that_are_listed(seen: Seen) -> None:
    for sent in seen.metrics:
        for name, value in ((name, value) for point in sent.attributes for name, value in point.items()):
            listed = LABELS[name]
            assert isinstance(listed, str) or value in listed, (sent.name, name, value)


async def test_who_measured_is_told(seen: Seen) -> None:
    instances = set()
    for service, figures in seen.figures.items():
        (target,) = [labels for name, labels, _ in figures.samples if name == "target_info"]
        assert (target["service_name"], target["service_version"]) == (f"vscan-{service}", vscan.__version__)
        assert target["k8s_pod_name"] == "pod-7"
        instances.add(target["service_instance_id"])
    assert len(instances) == 2
    resources = {span.service: span.resource for span in seen.spans}
    assert resources["vscan-decoder"]["service.instance.id"] in instances
    assert resources["vscan-decoder"]["k8s.pod.name"] == "pod-7"


async def test_both_were_ready(seen: Seen) -> None:
    (series,) = series_names(names.METRIC_READY)
    assert [figures.total(series) for figures in seen.figures.values()] == [1, 1]
    last = {metric.service: metric.values for metric in seen.metrics if metric.name == names.METRIC_READY.name}
    assert last == {"vscan-encoder": (0,), "vscan-decoder": (0,)}, "and no more, once they had stopped"


async def test_every_span_is_sent_where_it_is_said_to_lie(seen: Seen) -> None:
    named = {span.name: span for span in SPANS}
    by_id = {span.span_id: span for span in seen.spans}
    ours = [span for span in seen.spans if span.name in named]
    assert {span.name for span in ours} == named.keys()
    for span in ours:
        wanted = named[span.name]
        assert span.attributes.keys() <= set(wanted.attributes), span.name
        parent = by_id.get(span.parent_id)
        while parent is not None and parent.name not in named:
            parent = by_id.get(parent.parent_id)
        assert parent is None or parent.name in wanted.parents, (span.name, parent and parent.name)
    unlisted = {span.name for span in seen.spans} - named.keys()
    assert all("/" in name or name in ("Health", "Check") for name in unlisted), unlisted


async def test_a_batch_links_to_every_request_in_it_and_they_to_it(seen: Seen) -> None:
    encodes = {(span.trace_id, span.span_id) for span in seen.spans if span.name == names.SPAN_ENCODE}
    batches = [span for span in seen.spans if span.name == names.SPAN_VIT_BATCH]
    served = [batch for batch in batches if batch.links]
    assert len(batches) - len(served) <= 1, "the one of the warm-up serves nobody"
    for batch in served:
        assert len(batch.links) == batch.attributes[names.ATTR_BATCH_IMAGES]
        assert encodes >= set(batch.links)
    linked = {link for span in seen.spans if span.name in (names.SPAN_VIT, names.SPAN_REDUCE) for link in span.links}
    assert linked == {(batch.trace_id, batch.span_id) for batch in served}


async def test_lines_of_both_services_have_the_trace_and_no_field_that_is_not_listed(seen: Seen) -> None:
    by_service = {service: {line["trace_id"] for line in lines} for service, lines in seen.log_lines.items()}
    traces = {span.trace_id for span in seen.spans if span.name == names.SPAN_GENERATE}
    answered = {line["trace_id"] for line in seen.log_lines["decoder"] if line["status"] == "OK" and "request" in line}
    assert len(answered) > 5
    assert answered <= traces
    encoded = {line["trace_id"] for line in seen.log_lines["decoder"] if "encoded" in line.get("places", "").split(",")}
    assert encoded
    assert encoded <= by_service["encoder"], "the same trace in both"
    for service, lines in seen.log_lines.items():
        for line in lines:
            assert {LOG_FIELDS[field][0] for field in line} <= {"both", service}, line


@pytest.mark.parametrize(
    "metric",
    [
        names.METRIC_TIME_TO_FIRST_TOKEN,
        names.METRIC_GEN_AI_REQUEST_DURATION,
        names.METRIC_TOKEN_GAP,
        names.METRIC_REQUEST_DURATION,
        names.METRIC_ENCODER_QUEUE_WAIT,
        names.METRIC_ENCODER_PASS,
        names.METRIC_REDIS_OPERATION,
    ],
    ids=lambda metric: metric.name,
)
async def test_histograms_name_the_trace_of_a_request_or_batch(seen: Seen, metric: Metric) -> None:
    exemplars = {trace for sent in seen.metrics if sent.name == metric.name for trace in sent.exemplars}
    assert exemplars
    assert exemplars <= {span.trace_id for span in seen.spans}


async def test_a_status_of_grpc_is_among_those_that_are_counted(seen: Seen) -> None:
    statuses = {
        point[names.ATTR_STATUS]
        for sent in seen.metrics
        if sent.name == names.METRIC_REQUESTS.name
        for point in sent.attributes
    }
    assert statuses <= {status.name for status in grpc.StatusCode}
    assert statuses >= {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "CANCELLED"}
    errors = {
        point.get(names.ATTR_ERROR_TYPE)
        for sent in seen.metrics
        if sent.name == names.METRIC_GEN_AI_REQUEST_DURATION.name
        for point in sent.attributes
    }
    assert errors == {None, "InvalidArgument", "Cancelled"}
