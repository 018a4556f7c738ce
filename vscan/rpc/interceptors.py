"""What happens around every call of a service.

StreamInOneTask          one call, one task
  OpenTelemetry          the server span, child of the caller's
    RequestLog           one log line and the metrics, from the final status
      Error              exceptions become a status with details
        Gate             (of RpcServer) admission, draining
          Authentication who calls, and for which tenant
            TenantLimits what that tenant may ask for
              Parse      bytes to the request message
                servicer

Strangers are refused before their bytes are parsed, and where metadata alone shows them, before these are read. Where callers
may be known by a certificate gRPC has received them, `max_message_bytes` at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from vscan.errors import DeadlineExceeded, InternalError, InvalidArgument, VScanError
from vscan.offload import off_loop_if_large
from vscan.rpc.authentication import Authentication
from vscan.rpc.error_details import NEVER_ON_THE_WIRE, STATUS_DETAILS_KEY, error_from_rpc, one_line, to_status
from vscan.rpc.handlers import (
    AroundInterceptor,
    Call,
    Context,
    Continuation,
    Handler,
    StreamInOneTask,
    behavior_of,
    is_infrastructure,
    is_polled,
)
from vscan.rpc.identities import Identities
from vscan.rpc.request_room import RequestRoom
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant_limits import TenantCounts, TenantLimits
from vscan.rpc.wire_scan import check_fields, may_exceed
from vscan.telemetry import names
from vscan.telemetry.context import current_trace_id
from vscan.telemetry.logs import FieldValue, add_request_fields, log_fields, request_fields
from vscan.telemetry.metrics import AdmissionMetrics, RpcMetrics
from vscan.telemetry.providers import Telemetry

__all__ = [
    "CodecInterceptor",
    "ErrorInterceptor",
    "RequestLogInterceptor",
    "inner_interceptors",
    "outer_interceptors",
]

_log = logging.getLogger("vscan.rpc")
_request_log = logging.getLogger("vscan.request")

# The caller went away, or its deadline passed: cancelled while working, or while a reply was being written.
_GONE = (asyncio.CancelledError, GeneratorExit)

# A caller whose time is up cancels by its own clock, and gRPC sends deadlines rounded up: here some time may seem to be left.
_DEADLINE_ROUNDING_SECONDS = 0.1


def outer_interceptors(settings: RpcSettings, telemetry: Telemetry) -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
    """Those around the gate, outermost first."""
    return [
        aio_server_interceptor(tracer_provider=telemetry.tracer_provider, filter_=_traced),
        StreamInOneTask(settings.client_patience_seconds),
        RequestLogInterceptor(RpcMetrics(telemetry.meter)),
        ErrorInterceptor(),
    ]


def inner_interceptors(
    settings: RpcSettings, telemetry: Telemetry, identities: Callable[[], Identities | None], counts: TenantCounts
) -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
    """Those within the gate, outermost first. `identities`: those that hold now; None where there is no file."""
    metrics = AdmissionMetrics(telemetry.meter)
    return [
        Authentication(identities, allow_anonymous=settings.allow_anonymous, metrics=metrics),
        TenantLimits(counts, metrics),
        CodecInterceptor(settings),
    ]


class RequestLogInterceptor(AroundInterceptor):
    """One line for each call when it has ended: method, status, duration, trace, and what the servicer added.

    Servicers add counts with `vscan.telemetry.logs.add_request_fields`.
    """

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Measures the call."""
        started = time.perf_counter()
        self._metrics.began(call.method)
        gone = False
        with request_fields() as fields:
            try:
                yield
            except _GONE:
                gone = True
                raise
            finally:
                status = gone_status(call.context) if gone else status_of(call.context)
                duration_ms = (time.perf_counter() - started) * 1000
                self._metrics.ended(call.method, status.name, duration_ms)
                _log_request(call.method, status, duration_ms, fields)


class ErrorInterceptor(AroundInterceptor):
    """Exceptions become a status with details; an unknown one INTERNAL with the trace id, while its text stays in the log."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Catches what the call raises."""
        try:
            yield
        except _GONE:
            _mark_span(gone_status(call.context))
            raise
        except grpc.aio.AbortError:
            raise  # the servicer has answered by itself
        except Exception as error:
            _fail(call, _known(error) or _unknown(call, error))


class CodecInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Parses requests and serializes replies within the error interceptor, where gRPC would do so around everything.

    So bytes that are no message get INVALID_ARGUMENT, and a reply that cannot be sent is a fault like any other. Before
    requests are parsed they are weighed, all calls together, and their fields counted. Nor are they read before: what is around
    this one, the caller's identity and limits, has been decided by then.
    """

    def __init__(self, settings: RpcSettings) -> None:
        self._room = RequestRoom(settings.max_request_bytes)
        self._max_fields = settings.max_message_fields
        self._patience_seconds = settings.client_patience_seconds

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Takes over from gRPC where the request is one message."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or is_infrastructure(handler_call_details.method):
            return handler
        behavior, parse, serialize = behavior_of(handler), handler.request_deserializer, handler.response_serializer

        async def serve(_: Any, context: Context) -> AsyncIterator[bytes]:
            request = await self._read(context)
            with self._room.holding(len(request)):
                message = await self._parsed(parse, request)
                if not handler.response_streaming:
                    yield bytes(serialize(await behavior(message, context)))
                    return
                async with aclosing(behavior(message, context)) as replies:
                    async for reply in replies:
                        yield serialize(reply)

        # On the wire it is as it was. But of a stream gRPC reads nothing, and what is written ends, only when it is asked to:
        # who sends slowly, or does not read, is already let in, counted and bounded in time.
        return grpc.stream_stream_rpc_method_handler(serve)  # type: ignore[arg-type]

    async def _read(self, context: Context) -> bytes:
        try:
            async with asyncio.timeout(self._patience_seconds):
                request = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"the request did not come within {self._patience_seconds:g} s") from None
        except grpc.aio.InternalError as error:  # as in writing
            raise asyncio.CancelledError from error
        if request is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise InvalidArgument("request", "none was sent")
        return bytes(request)

    async def _parsed(self, parse: Any, request: bytes) -> Any:
        if may_exceed(request, self._max_fields):
            descriptor = parse.__self__.DESCRIPTOR  # `FromString` of the message's class
            await off_loop_if_large(len(request), lambda: check_fields(request, descriptor, self._max_fields))
        try:
            return parse(request)  # here: protobuf keeps the interpreter to itself meanwhile, in whichever thread
        except Exception as error:
            raise InvalidArgument("request", "the bytes are not a message of this call's type") from error


def _traced(details: grpc.HandlerCallDetails) -> bool:
    return not is_infrastructure(details.method)


def status_of(context: Context) -> grpc.StatusCode:
    """The status that the call ends with; unset means OK."""
    return context.code() or grpc.StatusCode.OK


def gone_status(context: Context) -> grpc.StatusCode:
    """Why a caller is gone: its deadline passed, or it cancelled."""
    left = context.time_remaining()
    late = left is not None and left <= _DEADLINE_ROUNDING_SECONDS
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _known(error: Exception) -> VScanError | None:
    """The typed error within, if the exception is one, a failed call to another service, or a group of nothing else."""
    if isinstance(error, NEVER_ON_THE_WIRE):
        return None
    if isinstance(error, VScanError):
        return error
    if isinstance(error, grpc.RpcError):
        return error_from_rpc(error)
    if isinstance(error, ExceptionGroup):
        known = [_known(inner) for inner in error.exceptions]
        return known[0] if all(known) else None
    return None


def _unknown(call: Call, error: Exception) -> VScanError:
    _log.error("unknown fault in %s", call.method, exc_info=error)
    trace_id = current_trace_id()
    advice = f"; quote trace {trace_id}" if trace_id else ""
    return InternalError(f"internal fault{advice}", trace_id=trace_id)


def _fail(call: Call, error: VScanError) -> None:
    error.trace_id = error.trace_id or current_trace_id()
    context = call.context
    context.set_code(error.status)
    context.set_details(one_line(error.message))
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), (STATUS_DETAILS_KEY, to_status(error))))
    name = type(error).__name__
    trace.get_current_span().set_attribute(names.ATTR_ERROR_TYPE, name)
    _add_error_fields(error, name)


def _add_error_fields(error: VScanError, name: str) -> None:
    add_request_fields(error=name)
    if field := getattr(error, "field", ""):
        add_request_fields(field=field)


def _mark_span(status: grpc.StatusCode) -> None:
    # The instrumentation library begins with OK and does not notice cancellation.
    span = trace.get_current_span()
    span.set_attribute(names.ATTR_RPC_STATUS_CODE, status.value[0])
    span.set_attribute(names.ATTR_ERROR_TYPE, status.name)


def _log_request(method: str, status: grpc.StatusCode, duration_ms: float, added: dict[str, FieldValue]) -> None:
    fields: dict[str, FieldValue] = {
        "method": method.rpartition("/")[2],
        "status": status.name,
        "duration_ms": round(duration_ms, 3),
        **added,
    }
    quiet = is_polled(method) and status is grpc.StatusCode.OK
    _request_log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=log_fields(fields))
