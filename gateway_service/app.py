"""The application: paths, and what goes around all of them."""

from __future__ import annotations

import logging
import time

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.util.http import parse_excluded_urls
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_service.conversation import CallerLeftError
from gateway_service.endpoints import Gateway
from gateway_service.http_errors import CALLER_LEFT, HttpRefusal, error_response, status_of
from vscan.errors import InternalError, VScanError
from vscan.http.host_names import KnownHosts, host_of, host_of_origin
from vscan.http.protocol import MAX_HEAD_BYTES, head_bytes
from vscan.telemetry.context import current_trace_id
from vscan.telemetry.logs import log_fields
from vscan.telemetry.providers import Telemetry

_log = logging.getLogger(__name__)
_CHAT, _MODELS = "/v1/chat/completions", "/v1/models"
_METHODS = {"GET", "HEAD", "POST"}
_HEALTH = ("/healthz", "/readyz", "/health")  # the last is what vLLM's is called, which load generators ask


def make_app(gateway: Gateway, telemetry: Telemetry, *, hosts: KnownHosts | None) -> ASGIApp:
    """The application. `hosts`: names that `Host` and `Origin` may have; None for any."""
    routes = [
        Route(_CHAT, _Endpoint(gateway.chat), methods=["POST"]),
        Route(_MODELS, _Endpoint(gateway.models), methods=["GET"]),
        Route(f"{_MODELS}/{{id:path}}", _Endpoint(gateway.models), methods=["GET"]),
        Route(_HEALTH[0], _Endpoint(gateway.alive), methods=["GET"]),
        *(Route(path, _Endpoint(gateway.ready), methods=["GET"]) for path in _HEALTH[1:]),
    ]
    around = [Middleware(ErrorsToldMiddleware), Middleware(KnownHostsMiddleware, hosts=hosts)]
    app = Starlette(routes=routes, middleware=around, exception_handlers={HTTPException: _no_such_path})
    app.router.redirect_slashes = False  # a redirect would be built from the caller's own Host
    instrumented: ASGIApp = OpenTelemetryMiddleware(
        app,
        excluded_urls=parse_excluded_urls("healthz,readyz,/health$"),
        tracer_provider=telemetry.tracer_provider,
        meter_provider=telemetry.meter_provider,
        default_span_details=lambda scope: (_span_name(scope), {}),
        exclude_spans=["receive", "send"],
    )
    return instrumented


def _span_name(scope: Scope) -> str:
    path = _known_path(scope)
    return f"{scope['method']} {path}" if path and scope["method"] in _METHODS else "HTTP"


def _known_path(scope: Scope) -> str | None:
    """One of ours; what others are called would be the caller's to choose."""
    path: str = scope["path"]
    if path.startswith(f"{_MODELS}/"):
        return _MODELS
    return path if path in (_MODELS, _CHAT) else None


class _Endpoint:
    """An ASGI application that Starlette does not take for a function of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class ErrorsToldMiddleware:
    """Answers errors in OpenAI's form, and ends each request with one line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing of ours gets past it but a cancellation."""
        if scope["type"] != "http":
            return
        began, status = time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            _refuse_two_lengths(Headers(scope=scope))
            _refuse_large_head(scope)
            await self._app(scope, receive, watched)
        except CallerLeftError:
            status = CALLER_LEFT
        except Exception as error:
            told = error if isinstance(error, VScanError | HttpRefusal) else _unknown(error)
            if not status:
                await error_response(told)(scope, receive, watched)
            status = status_of(told)
        finally:
            self._tell(scope, status, began)

    def _tell(self, scope: Scope, status: int, began: float) -> None:
        if scope["path"] in _HEALTH:
            return
        fields = log_fields({"status": status, "duration_ms": (time.monotonic() - began) * 1000})
        _log.info("%s %s", scope["method"][:8], _known_path(scope) or "(no such path)", extra=fields)


class KnownHostsMiddleware:
    """On loopback: refuses a request whose `Host` or `Origin` is not this machine's. A page of another site can have its own
    name point to 127.0.0.1 (DNS rebinding), and its scripts would then read answers.
    """

    def __init__(self, app: ASGIApp, hosts: KnownHosts | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HttpRefusal."""
        if self._hosts is not None and scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check("host", self._hosts.has(host_of(headers.get("host", ""))))
            if "origin" in headers:
                self._check("origin", self._hosts.has(host_of_origin(headers["origin"])))
        await self._app(scope, receive, send)

    def _check(self, name: str, is_known: bool) -> None:
        if not is_known:
            raise HttpRefusal(403, "unknown_host", f"{name}: not a name of this machine's, see VSCAN_GATEWAY_ALLOWED_HOSTS")


def _refuse_two_lengths(headers: Headers) -> None:
    """A proxy that believed the other of them would take the rest of this body for somebody's next request."""
    if "transfer-encoding" in headers and "content-length" in headers:
        refusal = HttpRefusal(400, "invalid_request", "content-length: beside transfer-encoding")
        refusal.ends_connection = True
        raise refusal


def _refuse_large_head(scope: Scope) -> None:
    if head_bytes(scope) > MAX_HEAD_BYTES:
        refusal = HttpRefusal(431, "headers_too_large", f"head: larger than {MAX_HEAD_BYTES:,} bytes")
        refusal.ends_connection = True
        raise refusal


def _unknown(error: Exception) -> InternalError:
    """Of what nobody foresaw the caller gets a trace id alone."""
    _log.error("a request failed", exc_info=error)
    trace_id = current_trace_id()
    return InternalError(f"internal error, trace id {trace_id}" if trace_id else "internal error", trace_id=trace_id)


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    response = error_response(HttpRefusal(error.status_code, code, error.detail))
    response.headers.update(error.headers or {})  # `Allow`
    return response
