"""Client spans, from the instrumentation library (extra `otel`), and what they lack: an end when the caller cancels.

The library ends a unary call's span once its status is known, and a stream's span once its replies are read to the end. A
caller that cancels does neither, and its trace would miss the span between the processes. So one interceptor goes around the
library's, and one for each kind of call goes within:

    CloseCancelledStream            closes the library's generator when the call was cancelled
      OpenTelemetry
        MarkCancelledUnary/Stream   says on the span that it was cancelled; ends a unary call's
          call
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.trace import Span, TracerProvider

from vscan.rpc.handlers import is_infrastructure
from vscan.telemetry import names

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Any]

_CANCELLED_HERE = "Locally cancelled by application!"  # what grpc.aio calls a cancellation by the caller itself


def tracing_interceptors(tracer_provider: TracerProvider | None = None) -> list[Any]:
    """The interceptors of an aio channel, outermost first. A provider of None is the global one.

    Health checks make no spans.
    """
    library = aio_client_interceptors(tracer_provider=tracer_provider, filter_=_traced)
    return [CloseCancelledStream(), *library, MarkCancelledUnary(), MarkCancelledStream()]


class CloseCancelledStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Closes what the library wrapped around a stream once the stream was cancelled."""

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Goes around the library's interceptor."""
        call = await continuation(client_call_details, request)
        replies = _Replies(call)
        call.add_done_callback(replies.on_done)
        return replies.read()


class MarkCancelledStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Says on a stream's span that it was cancelled."""

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Goes within the library's interceptor."""
        span = trace.get_current_span()
        call = await continuation(client_call_details, request)
        call.add_done_callback(lambda call: _mark_cancelled(span) if call.cancelled() else None)
        return call


class MarkCancelledUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Ends a unary call's span when the call was cancelled, and the call with it."""

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Goes within the library's interceptor, which waits for the call's end as well."""
        span = trace.get_current_span()
        call = await continuation(client_call_details, request)
        try:
            await call.code()
        except asyncio.CancelledError:
            call.cancel()
            if _traced(client_call_details):
                _mark_cancelled(span)
                span.end()
            raise
        return call


def _traced(details: Any) -> bool:
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    return not is_infrastructure(method)


class _Replies:
    """The replies of a stream, and the library's generator that they come through. That one ends its span when it ends."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._source: Any = aiter(call)
        self._begun = False
        self._closed = False
        self._closing: asyncio.Task[None] | None = None  # kept here, or the loop would forget it

    async def read(self) -> AsyncIterator[Any]:
        """Every reply; a cancelled call ends in CancelledError, as it does without interceptors."""
        if not self._closed:
            self._begun = True
            async for reply in self._source:
                yield reply
        if self._closed:  # which looked like the end
            raise asyncio.CancelledError

    def on_done(self, _: Any) -> None:
        """The call has its status: nobody needs the generator any more if it was cancelled from here."""
        if self._call.cancelled():
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if await self._call.details() != _CANCELLED_HERE:
            return  # the server said so: whoever reads gets its error
        self._closed = True
        if not self._begun:  # a generator that never began would not run its end
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await anext(self._source)
        with suppress(RuntimeError):  # somebody waits for the next reply: the cancellation reaches the generator that way
            await self._source.aclose()


def _mark_cancelled(span: Span) -> None:
    if span.is_recording():
        span.set_attribute(names.ATTR_RPC_STATUS_CODE, grpc.StatusCode.CANCELLED.value[0])
        span.set_attribute(names.ATTR_ERROR_TYPE, grpc.StatusCode.CANCELLED.name)
