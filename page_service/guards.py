"""What goes around every request: who may call the page by which name and from where, and what its answers let browsers do."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from page_service.words import Refusal, refusal_response
from vscan.rpc.address import is_loopback_host

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


class GuardMiddleware:
    """Refuses other names than its own (DNS rebinding) and posts from other sites (CSRF); adds headers to every answer.

    Args:
        app: what is guarded.
        hosts: names besides loopback's that `Host` may have.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers refusals itself."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _check(self, method: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            raise Refusal(
                403, "unknown_host", "This page is not known by that name.", advice="Set VSCAN_PAGE_ALLOWED_HOSTS to the name."
            )
        if method in _SAFE_METHODS:
            return
        site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
        if site not in ("same-origin", "none") or (origin is not None and _network_location(origin) != hosts[0].lower()):
            raise Refusal(403, "foreign_origin", "Another site may not ask through this page.")

    def _is_known(self, host: str) -> bool:
        name = _host_name(host)
        return is_loopback_host(name) or name in self._hosts


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _network_location(origin: str) -> str:
    """`http://Localhost:7080` → `localhost:7080`; nothing of what is no origin (`null`)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") else ""
