"""Errors on the wire: `google.rpc.Status` in the `grpc-status-details-bin` trailer, and back. Needs the base install only.

    Status{code, message, details: [vscan.v1.ErrorDetail, google.rpc.RetryInfo?, google.rpc.BadRequest?]}

`ErrorDetail` says everything; the other two repeat parts of it for generic clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from vscan.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    MissingImages,
    PermissionDenied,
    ResourceExhausted,
    StartupError,
    Unauthenticated,
    Unavailable,
    VScanError,
)
from vscan.v1 import errors_pb2

STATUS_DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_CHARS = 1000  # the trailer must stay below the 8 KiB of metadata that clients take by default
DEFAULT_RETRY_DELAY_MS = 1000
# What gRPC says of a call that its own caller cancelled, or whose channel was closed. (An asyncio stub raises CancelledError.)
_CALLERS_DOING = frozenset({"Locally cancelled by application!", "Channel closed!"})

# Errors of a service's start: they speak of its files and settings, so they never travel.
NEVER_ON_THE_WIRE: tuple[type[VScanError], ...] = (StartupError,)


def to_status(error: VScanError) -> bytes:
    """A serialized `google.rpc.Status` that says all of `error`.

    Raises:
        TypeError: the error is one that never travels.
    """
    if isinstance(error, NEVER_ON_THE_WIRE):
        raise TypeError(f"{type(error).__name__} never travels")
    status = status_pb2.Status(code=error.status.value[0], message=one_line(error.message))
    status.details.add().Pack(to_detail(error))
    if isinstance(error, ResourceExhausted):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_delay_ms)
        status.details.add().Pack(retry)
    if isinstance(error, InvalidArgument):
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field, description=one_line(error.message))
        status.details.add().Pack(bad)
    return bytes(status.SerializeToString())


def to_detail(error: VScanError) -> errors_pb2.ErrorDetail:
    """The error's own message."""
    return errors_pb2.ErrorDetail(
        name=type(error).__name__,
        field=getattr(error, "field", ""),
        limit=getattr(error, "limit", ""),
        retryable=error.retryable,
        retry_delay_ms=getattr(error, "retry_delay_ms", None),
        missing_sha256=getattr(error, "sha256", ()),
        trace_id=error.trace_id,
    )


def one_line(text: str) -> str:
    """The text on one line, of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 1] + "…"


def error_from_rpc(error: grpc.RpcError) -> VScanError:
    """The typed error that a failed call means; from its details if it has any, else from its status.

    Takes what a stub raises, sync or aio. Raise the result `from` the argument.
    """
    call: Any = error  # every error that a stub raises is also a call
    code, message = call.code(), call.details() or ""
    detail = _detail_in(call.trailing_metadata() or ())
    if detail is not None and detail.name in FROM_DETAIL:
        return FROM_DETAIL[detail.name](message, detail)
    if detail is None and code is grpc.StatusCode.CANCELLED and message not in _CALLERS_DOING:
        # No service of ours said so: its gRPC ends with it what it has not begun when it stops, and a proxy what it gives up.
        return Unavailable(f"the server ended the call ({message or code.name})")
    return _from_code(code, message, detail or errors_pb2.ErrorDetail())


def was_told(error: VScanError) -> bool:
    """Whether a service of ours said what a client caught; else its words are gRPC's, of a call that got nowhere."""
    call: Any = error.__cause__
    if not isinstance(error.__cause__, grpc.RpcError):
        return False
    return _detail_in(call.trailing_metadata() or ()) is not None


Builder = Callable[[str, errors_pb2.ErrorDetail], VScanError]


def _plain(error: type[VScanError]) -> Builder:
    return lambda message, detail: error(message, trace_id=detail.trace_id)


def _invalid_argument(message: str, detail: errors_pb2.ErrorDetail) -> VScanError:
    problem = message.removeprefix(f"{detail.field}: ")
    if detail.limit:
        problem = problem.removesuffix(f", limit {detail.limit}")
    return InvalidArgument(detail.field, problem, limit=detail.limit, trace_id=detail.trace_id)


def _missing_images(message: str, detail: errors_pb2.ErrorDetail) -> VScanError:
    return MissingImages(tuple(detail.missing_sha256), field=detail.field, trace_id=detail.trace_id)


def _resource_exhausted(message: str, detail: errors_pb2.ErrorDetail) -> VScanError:
    delay = detail.retry_delay_ms if detail.HasField("retry_delay_ms") else DEFAULT_RETRY_DELAY_MS
    return ResourceExhausted(message, retry_delay_ms=delay, trace_id=detail.trace_id)


# By `ErrorDetail.name`. A new class of error is added here; a test fails where one is not.
FROM_DETAIL: dict[str, Builder] = {
    "VScanError": _plain(InternalError),
    "InvalidArgument": _invalid_argument,
    "FailedPrecondition": _plain(FailedPrecondition),
    "MissingImages": _missing_images,
    "PermissionDenied": _plain(PermissionDenied),
    "Unauthenticated": _plain(Unauthenticated),
    "ResourceExhausted": _resource_exhausted,
    "Unavailable": _plain(Unavailable),
    "DeadlineExceeded": _plain(DeadlineExceeded),
    "Cancelled": _plain(Cancelled),
    "InternalError": _plain(InternalError),
}

# By status, for errors that come from gRPC itself, from a proxy, or from a newer service with a name not known here.
_BY_CODE: dict[grpc.StatusCode, Builder] = {
    grpc.StatusCode.CANCELLED: _plain(Cancelled),
    grpc.StatusCode.INVALID_ARGUMENT: lambda message, detail: _invalid_argument(message, _with_field(detail)),
    grpc.StatusCode.OUT_OF_RANGE: lambda message, detail: _invalid_argument(message, _with_field(detail)),
    grpc.StatusCode.DEADLINE_EXCEEDED: _plain(DeadlineExceeded),
    grpc.StatusCode.NOT_FOUND: _plain(FailedPrecondition),
    grpc.StatusCode.ALREADY_EXISTS: _plain(FailedPrecondition),
    grpc.StatusCode.FAILED_PRECONDITION: _plain(FailedPrecondition),
    grpc.StatusCode.UNIMPLEMENTED: _plain(FailedPrecondition),
    grpc.StatusCode.PERMISSION_DENIED: _plain(PermissionDenied),
    grpc.StatusCode.UNAUTHENTICATED: _plain(Unauthenticated),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _resource_exhausted,
    grpc.StatusCode.ABORTED: _plain(Unavailable),
    grpc.StatusCode.UNAVAILABLE: _plain(Unavailable),
}

# gRPC refuses a message over the size limit with RESOURCE_EXHAUSTED, where waiting does not help. It says on which side.
_TOO_LARGE = re.compile(r"(?:(CLIENT|SERVER): )?(Sent|Received) message larger than max \((\d+) vs\.? (\d+)\)")


def _from_code(code: grpc.StatusCode, message: str, detail: errors_pb2.ErrorDetail) -> VScanError:
    too_large = _TOO_LARGE.search(message)
    if too_large and code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        side, verb, size, limit = too_large[1], too_large[2], int(too_large[3]), int(too_large[4])
        field = "reply" if (side, verb) in {("CLIENT", "Received"), ("SERVER", "Sent")} else "request"
        return InvalidArgument(field, f"message of {size:,} bytes", limit=f"{limit:,} bytes")
    build = _BY_CODE.get(code, _plain(InternalError))
    return build(message or code.name, detail)


def _with_field(detail: errors_pb2.ErrorDetail) -> errors_pb2.ErrorDetail:
    named = errors_pb2.ErrorDetail()
    named.CopyFrom(detail)
    named.field = detail.field or "request"
    return named


def _detail_in(metadata: Iterable[tuple[str, str | bytes]]) -> errors_pb2.ErrorDetail | None:
    for key, value in metadata:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            return _parse_detail(value)
    return None


def _parse_detail(serialized: bytes) -> errors_pb2.ErrorDetail | None:
    """What the trailer says, as far as it can be read: a foreign or broken one leaves the status to speak."""
    detail = errors_pb2.ErrorDetail()
    retry = error_details_pb2.RetryInfo()
    try:
        status = status_pb2.Status.FromString(serialized)
        for packed in status.details:
            if packed.Unpack(detail):
                return detail
            if packed.Unpack(retry):
                return errors_pb2.ErrorDetail(retry_delay_ms=max(0, retry.retry_delay.ToMilliseconds()))
    except DecodeError:
        return None
    return None
