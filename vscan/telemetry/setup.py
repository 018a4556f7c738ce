"""Makes the providers of a process. With `console` and `sampling` this needs the OpenTelemetry SDK (extra `otel`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

import vscan
from vscan.errors import StartupError
from vscan.rpc.address import Address, parse_address
from vscan.telemetry.console import ConsoleSpanExporter
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.sampling import service_sampler

if TYPE_CHECKING:
    from vscan.telemetry.settings import TelemetrySettings

_EXPORT_TIMEOUT_SECONDS = 5  # bounds how long a collector that is away can hold up the end of a process

_log = logging.getLogger(__name__)


def setup_telemetry(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Traces and metrics of a service. Without any exporter spans are still made, so that logs and errors have trace ids.

    Raises:
        StartupError: the address for Prometheus cannot be taken.
    """
    resource = _resource(service_name)
    stop_prometheus, readers = _nothing, []
    if settings.metrics_bind is not None:
        reader, stop_prometheus = _serve_prometheus(settings.metrics_bind)
        readers.append(reader)
    if settings.otlp_endpoint is not None and settings.otlp_metrics:
        readers.append(_otlp_metrics(settings.otlp_endpoint))
    tracers = _tracers(
        resource, settings.otlp_endpoint, console=settings.trace_console, sample_ratio=settings.trace_sample_ratio
    )
    meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    return Telemetry(tracers, meters, _shutdown_all(tracers.shutdown, meters.shutdown, stop_prometheus))


def setup_tracing(
    service_name: str, *, otlp_endpoint: str | None = None, console: bool = False, sample_ratio: float = 1.0
) -> Telemetry:
    """Traces alone, for a client: no settings class, no metrics."""
    tracers = _tracers(_resource(service_name), otlp_endpoint, console=console, sample_ratio=sample_ratio)
    return Telemetry(tracers, on_shutdown=_shutdown_all(tracers.shutdown))


def _resource(service_name: str) -> Resource:
    return Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: vscan.__version__})


def _tracers(resource: Resource, otlp_endpoint: str | None, *, console: bool, sample_ratio: float) -> TracerProvider:
    provider = TracerProvider(resource=resource, sampler=service_sampler(sample_ratio), shutdown_on_exit=False)
    if otlp_endpoint is not None:
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, timeout=_EXPORT_TIMEOUT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    if console:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    return provider


def _otlp_metrics(endpoint: str) -> MetricReader:
    return PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_SECONDS))


def _serve_prometheus(bind: str) -> tuple[MetricReader, Callable[[], None]]:
    """A registry of this process' own, served over HTTP from a thread."""
    # Imported here: the `otel` extra of the SDK does without Prometheus.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.process_collector import ProcessCollector

    address = parse_address(bind)
    registry = CollectorRegistry()
    try:
        server, thread = start_http_server(address.port, address.host, registry=registry)
    except OSError as error:
        raise StartupError(f"cannot serve metrics on {bind}: {error.strerror or error}") from error
    _log.info("metrics are served on http://%s/metrics", Address(address.host, server.server_port))
    ProcessCollector(registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return PrometheusMetricReader(registry=registry), stop


def _shutdown_all(*steps: Callable[[], Any]) -> Callable[[], None]:
    """Runs every step, in order, even after one failed: the end of a process must not hang on its telemetry."""

    def shutdown() -> None:
        for step in steps:
            try:
                step()
            except Exception:
                _log.warning("telemetry did not stop cleanly", exc_info=True)

    return shutdown


def _nothing() -> None:
    pass
