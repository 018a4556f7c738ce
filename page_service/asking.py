"""`POST /ask`: one question at one budget, answered as server-sent events.

started    what was kept of each image and video, and where each patch lies
delta      more of the answer's text
finished   the answer, its counts, times and survivors
failed     or why there is none
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from page_service import telling
from page_service.config import PageSettings
from page_service.form import Asked, read_form, size_of
from page_service.words import Refusal, refusal_response, told_of, told_unknown
from vscan.errors import ResourceExhausted, VScanError
from vscan.http.ending import leaving, unless
from vscan.rpc.request_room import RequestRoom
from vscan_client import AsyncClient, Started, TextDelta

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # proxies that would hold pieces back
]
_log = logging.getLogger(__name__)


class _LeftError(Exception):
    """The browser did."""


class Asking:
    """Takes questions, so many at once.

    Args:
        settings: the bounds.
        client: whom to ask.
    """

    def __init__(self, settings: PageSettings, client: AsyncClient) -> None:
        self._settings, self._client = settings, client
        self._room = RequestRoom(settings.max_uploads_bytes)
        self._stopping = asyncio.Event()
        self._asked = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns once no question is being answered."""
        await self._idle.wait()

    def end(self) -> None:
        """Ends all answers, each with an event that says so."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The endpoint."""
        request = Request(scope, receive)
        try:
            with self._place(size_of(request, self._settings)):
                asked = await unless(read_form(request, self._settings), self._stopping.wait(), _stopping())
                await self._answer(asked, receive, send)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send)

    async def _answer(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Ends the call of the decoder when the browser leaves, too."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            telling_it = unless(self._tell(asked, send), leaving(receive), _LeftError())
            await unless(telling_it, self._stopping.wait(), _stopping())
        except _LeftError:
            return
        except Refusal as refusal:
            await _send_event(send, "failed", refusal.told.to_dict())
        await send({"type": "http.response.body", "body": b""})

    async def _tell(self, asked: Asked, send: Send) -> None:
        try:
            async with self._client.stream(list(asked.visuals), asked.question, **asked.options) as stream:
                async for event in stream:
                    if isinstance(event, Started):
                        await _send_event(send, "started", await asyncio.to_thread(telling.started, event))
                    elif isinstance(event, TextDelta) and event.text:
                        await _send_event(send, "delta", {"text": event.text})
                await _send_event(send, "finished", telling.finished(stream.answer))
        except VScanError as error:
            await _send_event(send, "failed", told_of(error, ", ".join(self._settings.decoder_address)).to_dict())
        except Exception:
            _log.exception("an answer could not be told")
            await _send_event(send, "failed", told_unknown().to_dict())

    @contextmanager
    def _place(self, size_bytes: int) -> Iterator[None]:
        """For a question of this size. Raises Refusal where there is none."""
        if self._asked >= self._settings.max_asks:
            raise _busy(f"{self._settings.max_asks} questions are being asked already.")
        try:
            with self._room.holding(size_bytes):
                self._asked += 1
                self._idle.clear()
                try:
                    yield
                finally:
                    self._asked -= 1
                    if not self._asked:
                        self._idle.set()
        except ResourceExhausted:
            raise _busy("The files of other questions fill all the room that there is for files.") from None


def _busy(message: str) -> Refusal:
    return Refusal(429, "busy", message, advice="Ask again soon.")


def _stopping() -> Refusal:
    return Refusal(503, "stopping", "The page's server is stopping.", advice="Ask again once it runs.")


async def _send_event(send: Send, name: str, data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"event: {name}\ndata: {text}\n\n".encode(), "more_body": True})
