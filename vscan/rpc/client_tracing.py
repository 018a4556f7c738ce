"""Client spans, from the instrumentation library (extra `otel`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.trace import TracerProvider


def tracing_interceptors(tracer_provider: TracerProvider | None, traced: Callable[[Any], bool]) -> list[Any]:
    """Interceptors of an aio channel that make a span of each call that is to be `traced` and send its context along."""
    return list(aio_client_interceptors(tracer_provider=tracer_provider, filter_=traced))
