"""The span `ask`, and the trace context that travels with a call. Needs the OpenTelemetry API alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry import propagate, trace

from vscan.errors import VScanError
from vscan.rpc.address import parse_address
from vscan.telemetry import names
from vscan_client.answer import Answer
from vscan_client.content import Video, Visual


@contextmanager
def ask_span(tracer: trace.Tracer, visuals: Sequence[Visual]) -> Iterator[trace.Span]:
    """The span `ask`, a child of the current one. Not made current: whichever task asks for the next event goes on in it."""
    videos = sum(isinstance(visual, Video) for visual in visuals)
    counts = {names.ATTR_IMAGES: len(visuals) - videos, names.ATTR_VIDEOS: videos}
    span = tracer.start_span(names.SPAN_ASK, attributes=counts)
    try:
        yield span
    except VScanError as error:
        span.set_attribute(names.ATTR_ERROR_TYPE, type(error).__name__)
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()


def describe_answer(span: trace.Span, answer: Answer) -> None:
    """What the span tells of an answer: counts and durations, neither text nor images."""
    span.set_attributes(
        {
            names.ATTR_REQUEST_ID: answer.request_id,
            names.ATTR_PLACES: [image.place.value for image in answer.images],
            names.ATTR_GEN_AI_INPUT_TOKENS: answer.usage.prompt_tokens,
            names.ATTR_GEN_AI_OUTPUT_TOKENS: answer.usage.completion_tokens,
            names.ATTR_GEN_AI_FINISH_REASONS: [each.finish_reason.value for each in answer.samples],
        }
    )
    if answer.client.first_token_ms is not None:
        span.set_attribute(names.ATTR_TIME_TO_FIRST_TOKEN_MS, answer.client.first_token_ms)


def describe_tries(span: trace.Span, attempts: int, server: str) -> None:
    """How often the question was sent, also where no answer came, and where to at last."""
    span.set_attribute(names.ATTR_ATTEMPT, attempts)
    if not server:
        return
    try:
        address = parse_address(server)
    except ValueError:  # another kind of gRPC's targets
        span.set_attribute(names.ATTR_SERVER_ADDRESS, server)
    else:
        span.set_attributes({names.ATTR_SERVER_ADDRESS: address.host, names.ATTR_SERVER_PORT: address.port})


def within(span: trace.Span) -> AbstractContextManager[trace.Span]:
    """Makes the span current while a call is begun, so that the call's spans are its children."""
    current: AbstractContextManager[trace.Span] = trace.use_span(
        span, end_on_exit=False, record_exception=False, set_status_on_exception=False
    )
    return current


def trace_id_of(span: trace.Span) -> str:
    """32 hexadecimal digits; empty without tracing."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def _with_context(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *headers.items())
    return grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


Continuation = Any  # Callable[[ClientCallDetails, Request], Awaitable[Call]]: the stubs say it differently for each kind


class PropagateUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Sends the current trace context with a call."""

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Adds the W3C headers."""
        return await continuation(_with_context(client_call_details), request)


class PropagateStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Sends the current trace context with a streaming call."""

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Adds the W3C headers."""
        return await continuation(_with_context(client_call_details), request)
