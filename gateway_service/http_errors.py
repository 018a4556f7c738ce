"""The project's errors as OpenAI's: a status, and `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from starlette.responses import JSONResponse

from vscan.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VScanError,
)
from vscan.telemetry.context import current_trace_id

CALLER_LEFT = 499  # nobody reads it: for the log


class HttpRefusal(Exception):
    """What only HTTP has: no such path, a body that is too large."""

    ends_connection = False

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


@dataclass(frozen=True, slots=True)
class _Form:
    status: int
    kind: str
    code: str


_BAD_REQUEST = "invalid_request_error"
_FORMS: dict[type[VScanError], _Form] = {
    InvalidArgument: _Form(400, _BAD_REQUEST, "invalid_value"),
    FailedPrecondition: _Form(400, _BAD_REQUEST, "failed_precondition"),
    Unauthenticated: _Form(401, "authentication_error", "invalid_api_key"),
    PermissionDenied: _Form(403, "permission_error", "permission_denied"),
    ResourceExhausted: _Form(429, "rate_limit_error", "rate_limit_exceeded"),
    Unavailable: _Form(503, "server_error", "unavailable"),
    Cancelled: _Form(503, "server_error", "cancelled"),  # by the server's side: a caller that left reads nothing
    DeadlineExceeded: _Form(504, "server_error", "timeout"),
    InternalError: _Form(500, "server_error", "internal_error"),
}
_RETRY_MS = 1000  # of what does not say


def error_body(error: VScanError | HttpRefusal) -> dict[str, Any]:
    """The JSON of an error. Of an unknown fault only the trace id is told."""
    if isinstance(error, HttpRefusal):
        told = {"message": error.message, "type": _BAD_REQUEST, "param": error.param, "code": error.code}
    else:
        form = _form(error)
        told = {
            "message": error.message,
            "type": form.kind,
            "param": error.field if isinstance(error, InvalidArgument) else None,
            "code": form.code,
        }
        if trace_id := error.trace_id or current_trace_id():
            told["trace_id"] = trace_id
    return {"error": told}


def error_response(error: VScanError | HttpRefusal) -> JSONResponse:
    """The whole answer, with when to come back where that is known."""
    return JSONResponse(error_body(error), status_of(error), headers=_headers(error))


def status_of(error: VScanError | HttpRefusal) -> int:
    """The HTTP status."""
    return error.status if isinstance(error, HttpRefusal) else _form(error).status


def _headers(error: VScanError | HttpRefusal) -> dict[str, str]:
    if isinstance(error, HttpRefusal):
        return {"connection": "close"} if error.ends_connection else {}
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, ResourceExhausted | Unavailable):
        delay_ms = error.retry_delay_ms if isinstance(error, ResourceExhausted) else _RETRY_MS
        # Whole seconds by the standard; OpenAI's clients read the other one first.
        return {"retry-after": str(max(1, ceil(delay_ms / 1000))), "retry-after-ms": str(delay_ms)}
    return {}


def _form(error: VScanError) -> _Form:
    return next((_FORMS[kind] for kind in type(error).__mro__ if kind in _FORMS), _FORMS[InternalError])
