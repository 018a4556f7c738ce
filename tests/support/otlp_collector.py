"""A real OTLP/gRPC collector of the tests' own: it keeps the spans and the metrics that it gets.

    with OtlpCollector() as collector:              # or `async with`
        ...                                         # export to collector.endpoint
        spans = await collector.wait_for(lambda spans: any(span.name == "vit" for span in spans))
        root = one_tree(spans)

It serves from threads, so that an exporter which blocks the event loop is still answered. For exporters in other processes set
`OTEL_BSP_SCHEDULE_DELAY` (milliseconds) to something small; in this process flush the provider.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedSpan:
    """A span as it came over the wire. Ids are hexadecimal; `parent_id` is empty for a root."""

    name: str
    service: str
    kind: str  # "INTERNAL", "SERVER", "CLIENT", ...
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: tuple[tuple[str, str], ...]  # (trace id, span id)
    events: tuple[str, ...]  # their names
    failed: bool

    @property
    def duration_ms(self) -> float:
        """From start to end."""
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedMetric:
    """A metric as it came over the wire, with what its points said at that time."""

    name: str
    unit: str
    kind: str  # "gauge", "sum" (of what only grows), "up_down" or "histogram"
    service: str
    attributes: tuple[dict[str, Any], ...]  # of each point
    values: tuple[float, ...]  # of each point; of a histogram its count
    exemplars: tuple[str, ...]  # trace ids


@dataclass(slots=True)
class Node:
    """A span with the spans that it is the parent of, in the order of their starts."""

    span: CollectedSpan
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, name: str) -> list[Node]:
        """All spans of that name, here and below."""
        return [node for node in self.walk() if node.span.name == name]

    def only(self, name: str) -> Node:
        """The one span of that name, here or below."""
        found = self.find(name)
        assert len(found) == 1, f"{len(found)} spans are called {name}:\n{self.render()}"
        return found[0]

    def render(self) -> str:
        """The tree as text, one span a line."""
        return "\n".join(_lines(self, 0))


class OtlpCollector:
    """The server, on a free port unless told. `spans` is what has arrived so far, `metrics` the last of each service."""

    def __init__(self, port: int = 0, *, credentials: grpc.ServerCredentials | None = None) -> None:
        self._scheme = "http" if credentials is None else "https"
        self._arrived = threading.Condition()
        self._spans: list[CollectedSpan] = []
        self._metrics: dict[tuple[str, str], CollectedMetric] = {}  # by service and name
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        if credentials is None:
            self._port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self._port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)

    @property
    def endpoint(self) -> str:
        """For `otlp_endpoint`."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    @property
    def spans(self) -> list[CollectedSpan]:
        """A copy."""
        with self._arrived:
            return list(self._spans)

    @property
    def metric_names(self) -> set[str]:
        """A copy."""
        with self._arrived:
            return {name for _, name in self._metrics}

    @property
    def metrics(self) -> list[CollectedMetric]:
        """A copy. Exemplars are those of all exports."""
        with self._arrived:
            return list(self._metrics.values())

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def wait_for(
        self, condition: Callable[[list[CollectedSpan]], bool], timeout_seconds: float = WAIT_SECONDS
    ) -> list[CollectedSpan]:
        """Waits until the spans fulfil the condition and returns them all. Raises AssertionError with them if they never do."""
        return await asyncio.to_thread(self.wait_until, condition, timeout_seconds)

    def wait_until(
        self, condition: Callable[[list[CollectedSpan]], bool], timeout_seconds: float = WAIT_SECONDS
    ) -> list[CollectedSpan]:
        """`wait_for` for tests without an event loop."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: condition(list(self._spans)), timeout_seconds)
            assert came, "the spans that were waited for did not come:\n" + "\n".join(map(_line, self._spans))
            return list(self._spans)

    def wait_for_metric(self, name: str, timeout_seconds: float = WAIT_SECONDS) -> None:
        """Waits until a metric of that name was exported."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: any(name == known for _, known in self._metrics), timeout_seconds), (
                f"{name} did not come"
            )

    def clear(self) -> None:
        """Forgets what has come."""
        with self._arrived:
            self._spans.clear()
            self._metrics.clear()

    def take_spans(self, spans: Sequence[CollectedSpan]) -> None:
        """Called by the trace service."""
        with self._arrived:
            self._spans.extend(spans)
            self._arrived.notify_all()

    def take_metrics(self, metrics: Sequence[CollectedMetric]) -> None:
        """Called by the metrics service."""
        with self._arrived:
            for metric in metrics:
                before = self._metrics.get((metric.service, metric.name))
                seen = () if before is None else before.exemplars
                self._metrics[metric.service, metric.name] = replace(metric, exemplars=(*seen, *metric.exemplars))
            self._arrived.notify_all()

    def __enter__(self) -> OtlpCollector:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(None).wait()

    async def __aenter__(self) -> OtlpCollector:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.__exit__)


def trees(spans: Sequence[CollectedSpan]) -> list[Node]:
    """The spans as trees: one for each span whose parent is not among them."""
    nodes = {span.span_id: Node(span) for span in sorted(spans, key=lambda span: span.start_ns)}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        (parent.children if parent else roots).append(node)
    return roots


def one_tree(spans: Sequence[CollectedSpan]) -> Node:
    """The root, if the spans are one trace and one tree: one root without a parent, and every other span's parent is there."""
    assert spans, "there are no spans"
    assert len({span.span_id for span in spans}) == len(spans), "a span came twice"
    roots = trees(spans)
    drawn = "\n\n".join(root.render() for root in roots)
    assert len({span.trace_id for span in spans}) == 1, f"more than one trace:\n{drawn}"
    assert len(roots) == 1, f"{len(roots)} trees, not one:\n{drawn}"
    assert roots[0].span.parent_id == "", f"the root's parent is missing:\n{drawn}"
    return roots[0]


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Any:
        self._collector.take_spans(
            [
                _collected(span, _attributes(resource.resource.attributes))
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        )
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):  # type: ignore[misc]
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: Any) -> Any:
        self._collector.take_metrics(
            [
                _measured(metric, str(_attributes(resource.resource.attributes).get("service.name", "")))
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ]
        )
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _collected(span: trace_pb2.Span, resource: dict[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        service=str(resource.get("service.name", "")),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        resource=resource,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple(event.name for event in span.events),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _measured(metric: metrics_pb2.Metric, service: str) -> CollectedMetric:
    kind = str(metric.WhichOneof("data"))
    data = getattr(metric, kind)
    points = data.data_points
    grows = kind != "sum" or data.is_monotonic
    return CollectedMetric(
        name=metric.name,
        unit=metric.unit,
        kind=kind if grows else "up_down",
        service=service,
        attributes=tuple(_attributes(point.attributes) for point in points),
        values=tuple(point.count if kind == "histogram" else point.as_double or point.as_int for point in points),
        exemplars=tuple(one.trace_id.hex() for point in points for one in point.exemplars if one.trace_id),
    )


def _attributes(pairs: Sequence[common_pb2.KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def _lines(node: Node, depth: int) -> Iterator[str]:
    yield "  " * depth + _line(node.span)
    for child in node.children:
        yield from _lines(child, depth + 1)


def _line(span: CollectedSpan) -> str:
    return f"{span.service} {span.kind} {span.name} {span.span_id} < {span.parent_id or '-'} {span.duration_ms:.2f} ms"
