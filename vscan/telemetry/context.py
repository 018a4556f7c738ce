"""The current trace, as text."""

from __future__ import annotations

from opentelemetry import trace


def current_trace_id() -> str:
    """The current trace, 32 hexadecimal digits; empty without one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def current_span_id() -> str:
    """The current span, 16 hexadecimal digits; empty without one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_span_id(context.span_id) if context.is_valid else ""
