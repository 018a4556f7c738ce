"""One request and its answer over HTTP: the body is read within bounds, and a caller that leaves ends the work for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from gateway_service.http_errors import HttpRefusal
from vscan.errors import Unavailable
from vscan.http.ending import leaving, unless

T = TypeVar("T")


class CallerLeftError(Exception):
    """The caller closed its connection, or no longer takes what it is sent."""


class PatientSend:
    """ASGI's `send`, which waits for a caller only so long. `started`: whether anything was sent."""

    def __init__(self, scope: Scope, send: Send, patience_s: float) -> None:
        self._scope, self._send, self._patience_s = scope, send, patience_s
        self.started = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Sends. Raises CallerLeftError where the caller does not take it; its connection is closed then."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
        try:
            async with asyncio.timeout(self._patience_s):
                await self._send(message)
        except TimeoutError:
            abort: Callable[[], None] | None = self._scope.get("state", {}).get("abort")
            if abort is not None:
                abort()
            raise CallerLeftError from None


async def read_body(request: Request, *, max_bytes: int, patience_s: float) -> bytes:
    """The whole body.

    Raises:
        HttpRefusal: it is larger, which is noticed while it comes; or it does not come.
        CallerLeftError: its caller left.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeftError
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise HttpRefusal(408, "request_timeout", f"the body did not come within {patience_s:g} s") from None


def too_large(max_bytes: int) -> HttpRefusal:
    """What a body gets that has more bytes."""
    return HttpRefusal(413, "request_too_large", f"body: larger than {max_bytes:,} bytes")


class Conversations:
    """Those that are being served; a gateway that stops ends them all."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    async def unless_the_caller_leaves(self, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to, whose request was read.

        Raises:
            CallerLeftError: its caller left first, and it was cancelled.
            Unavailable: `end` was called, and it was cancelled.
        """
        for_the_caller = unless(work, leaving(receive), CallerLeftError())
        return await unless(for_the_caller, self._stopping.wait(), Unavailable("the gateway is stopping"))

    def end(self) -> None:
        """Cancels all of them, and those to come."""
        self._stopping.set()
