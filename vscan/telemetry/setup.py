"""Makes the providers of a process. With `console` and `sampling` this needs the OpenTelemetry SDK (extra `otel`)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

import vscan
from vscan.rpc.tls_files import ServerTls, read_pem
from vscan.telemetry.console import ConsoleSpanExporter
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.sampling import service_sampler

if TYPE_CHECKING:
    from vscan.telemetry.settings import TelemetrySettings

_EXPORT_TIMEOUT_SECONDS = 5  # bounds how long a collector that is away can hold up the end of a process

_log = logging.getLogger(__name__)


def setup_telemetry(
    service_name: str, settings: TelemetrySettings, *, tls: ServerTls | None = None, insecure: bool = False
) -> Telemetry:
    """Traces and metrics of a service. Without any exporter spans are still made, so that logs and errors have trace ids.

    Args:
        tls: the service's own, which protects the metrics' port too.
        insecure: allow plaintext beyond loopback where there is none.

    Raises:
        StartupError: the address for Prometheus cannot be taken or would be open, or a file cannot be read.
    """
    resource = _resource(service_name)
    stop_prometheus, readers = _nothing, []
    if settings.metrics_bind is not None:
        reader, stop_prometheus = _serve_prometheus(settings.metrics_bind, tls, insecure)
        readers.append(reader)
    if settings.otlp_endpoint is not None and settings.otlp_metrics:
        readers.append(_otlp_metrics(settings.otlp_endpoint, _trusted(settings)))
    tracers = _tracers(
        resource,
        settings.otlp_endpoint,
        _trusted(settings),
        console=settings.trace_console,
        sample_ratio=settings.trace_sample_ratio,
    )
    # Said here, though the SDK would do the same unless its own variable says otherwise.
    exemplars = TraceBasedExemplarFilter()
    meters = MeterProvider(metric_readers=readers, resource=resource, exemplar_filter=exemplars, shutdown_on_exit=False)
    return Telemetry(tracers, meters, _shutdown_all(tracers.shutdown, meters.shutdown, stop_prometheus))


def setup_tracing(
    service_name: str, *, otlp_endpoint: str | None = None, console: bool = False, sample_ratio: float = 1.0
) -> Telemetry:
    """Traces alone, for a client: no settings class, no metrics."""
    tracers = _tracers(_resource(service_name), otlp_endpoint, console=console, sample_ratio=sample_ratio)
    return Telemetry(tracers, on_shutdown=_shutdown_all(tracers.shutdown))


def _resource(service_name: str) -> Resource:
    """Who measures. `OTEL_RESOURCE_ATTRIBUTES` adds to it; the name and the version are this project's to say."""
    instance = Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())})
    return instance.merge(Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: vscan.__version__}))


def _tracers(
    resource: Resource,
    otlp_endpoint: str | None,
    trusted: grpc.ChannelCredentials | None = None,
    *,
    console: bool,
    sample_ratio: float,
) -> TracerProvider:
    provider = TracerProvider(resource=resource, sampler=service_sampler(sample_ratio), shutdown_on_exit=False)
    if otlp_endpoint is not None:
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, credentials=trusted, timeout=_EXPORT_TIMEOUT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    if console:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    return provider


def _otlp_metrics(endpoint: str, trusted: grpc.ChannelCredentials | None) -> MetricReader:
    return PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, credentials=trusted, timeout=_EXPORT_TIMEOUT_SECONDS)
    )


def _trusted(settings: TelemetrySettings) -> grpc.ChannelCredentials | None:
    """Whom to take for the collector; None: the library's own choice, the system's CAs for https."""
    if settings.otlp_ca_file is None:
        return None
    return grpc.ssl_channel_credentials(read_pem(settings.otlp_ca_file))


def _serve_prometheus(bind: str, tls: ServerTls | None, insecure: bool) -> tuple[MetricReader, Callable[[], None]]:
    """A registry of this process' own, served over HTTP from a thread."""
    # Imported here: the `otel` extra of the SDK does without Prometheus.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry
    from prometheus_client.process_collector import ProcessCollector

    from vscan.telemetry.prometheus import serve_metrics

    registry = CollectorRegistry()
    stop = serve_metrics(registry, bind, tls=tls, insecure=insecure)
    ProcessCollector(registry=registry)
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
