"""What goes around every request: who may call the page by which name and from where, and what its answers let browsers do."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from page_service.words import Refusal, refusal_response, told_response, told_unknown
from vscan.http.host_names import KnownHosts, host_of, is_same_place
from vscan.http.protocol import MAX_HEAD_BYTES, head_bytes

# Pictures are shown from the file that was chosen, which the browser calls blob:. Nothing else comes from elsewhere.
POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE_METHODS = {"GET", "HEAD"}
_log = logging.getLogger(__name__)


class GuardMiddleware:
    """Refuses other names than its own (DNS rebinding) and posts from other sites (CSRF); adds headers to every answer, and
    tells a browser nothing of faults that nobody foresaw.

    Args:
        app: what is guarded.
        hosts: names that `Host` may have.
    """

    def __init__(self, app: ASGIApp, hosts: KnownHosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers refusals itself."""
        if scope["type"] != "http":
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            _check_head(scope)
            self._check(scope["method"], Headers(scope=scope))
            await self._app(scope, receive, with_headers)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, with_headers)
        except Exception:
            if started:
                raise
            _log.exception("a request failed")
            await told_response(500, told_unknown())(scope, receive, with_headers)

    def _check(self, method: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.has(host_of(hosts[0])):
            raise Refusal(
                403, "unknown_host", "This page is not known by that name.", advice="Set VSCAN_PAGE_ALLOWED_HOSTS to the name."
            )
        if method in _SAFE_METHODS:
            return
        site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
        if site not in ("same-origin", "none") or (origin is not None and not is_same_place(origin, hosts[0])):
            raise Refusal(403, "foreign_origin", "Another site may not ask through this page.")


def _check_head(scope: Scope) -> None:
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers and "content-length" in headers:
        # A proxy that believed the other of them would take the rest of this body for somebody's next request.
        raise Refusal(400, "bad_request", "A length beside transfer-encoding.", ends_connection=True)
    if head_bytes(scope) > MAX_HEAD_BYTES:
        raise Refusal(431, "bad_request", f"A head of more than {MAX_HEAD_BYTES:,} bytes.", ends_connection=True)
