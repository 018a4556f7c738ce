"""The application: the page's own files, its state, and questions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from page_service.asking import Asking
from page_service.config import PageSettings
from page_service.guards import GuardMiddleware
from page_service.health import Health
from page_service.words import Refusal, refusal_response
from vscan.http.host_names import KnownHosts, host_of

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"


def make_app(settings: PageSettings, health: Health, asking: Asking) -> Starlette:
    """The application. `health` tells the state of the services, `asking` takes questions."""
    pages = own_files()

    async def state(request: Request) -> Response:
        return JSONResponse({"limits": _limits(settings), **await health.state()})

    async def own(request: Request) -> Response:
        name = request.url.path.removeprefix("/") or _INDEX
        return Response(pages[name], media_type=_TYPES[name[name.rindex(".") :]])

    bound = host_of(settings.bind) or ""
    app = Starlette(
        routes=[
            Route("/", own, methods=["GET"]),
            Route("/state", state, methods=["GET"]),
            Route("/ask", asking, methods=["POST"]),
            *(Route(f"/{name}", own, methods=["GET"]) for name in pages),
        ],
        middleware=[Middleware(GuardMiddleware, hosts=KnownHosts((bound, *settings.allowed_hosts)))],
        exception_handlers={HTTPException: _no_such_path},
    )
    app.router.redirect_slashes = False  # a redirect would be built from the caller's own Host
    return app


def own_files() -> Mapping[str, bytes]:
    """The page's files by name, read once: no request reads a path."""
    folder = files("page_service") / "static"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name[entry.name.rindex(".") :] in _TYPES}


def _limits(settings: PageSettings) -> dict[str, int]:
    return {
        "max_files": settings.max_files,
        "max_upload_bytes": settings.max_upload_bytes,
        "max_question_chars": settings.max_question_chars,
    }


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "no_such_method" if error.status_code == 405 else "no_such_path"
    response = refusal_response(Refusal(error.status_code, code, f"{error.detail}."))
    response.headers.update(error.headers or {})  # `Allow`
    return response
