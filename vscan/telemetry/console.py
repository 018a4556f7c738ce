"""Spans on a terminal, one line each, as they end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

_SHOWN_TRACE_DIGITS = 8
_HIDDEN = ("net.", "rpc.", "db.", "server.", "network.")  # what the instrumentation libraries say of every call


class ConsoleSpanExporter(SpanExporter):  # type: ignore[misc]
    """`trace 4bf92f35 vscan-decoder  prune 00f067aa < b7ad6b71  1.23 ms  before_tokens=96 after_tokens=32`.

    After the service come the span, its id, its parent's id, its duration and its attributes without their dotted prefix.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Prints them."""
        for span in spans:
            print(describe(span), file=self._stream, flush=True)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Nothing is held."""
        return True


def describe(span: ReadableSpan) -> str:
    """A finished span in one line."""
    trace_id = format_trace_id(span.context.trace_id)[:_SHOWN_TRACE_DIGITS]
    parent = f" < {format_span_id(span.parent.span_id)[:8]}" if span.parent else ""
    duration_ms = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    parts = [
        f"trace {trace_id} {span.resource.attributes.get('service.name', '')} ",
        f"{span.name} {format_span_id(span.context.span_id)[:8]}{parent} ",
        f"{duration_ms:.2f} ms ",
        *_attributes(span.attributes or {}),
    ]
    if span.status.status_code is StatusCode.ERROR:
        parts.append("ERROR")
    return " ".join(parts).rstrip()


def _attributes(attributes: Mapping[str, Any]) -> list[str]:
    shown = ((name, value) for name, value in attributes.items() if not name.startswith(_HIDDEN))
    return [f"{name.rpartition('.')[2]}={_value(value)}" for name, value in shown]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
