"""`POST /ask`: one question at one budget, answered as server-sent events.

started    what was kept of each image and video, and where each patch lies
delta      more of the answer's text
finished   the answer, its counts, times and survivors
failed     or why there is none
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from page_service import telling
from page_service.config import PageSettings
from page_service.form import Asked, read_form
from page_service.words import Refusal, refusal_response, told_of
from vscan.errors import VScanError
from vscan_client import AsyncClient, Started, TextDelta


class Asking:
    """Takes questions, so many at once.

    Args:
        settings: the bounds.
        client: whom to ask.
    """

    def __init__(self, settings: PageSettings, client: AsyncClient) -> None:
        self._settings, self._client = settings, client
        self._places = asyncio.Semaphore(settings.max_asks)

    async def ask(self, request: Request) -> Response:
        """The endpoint."""
        if self._places.locked():
            busy = Refusal(
                429, "busy", f"{self._settings.max_asks} questions are being asked already.", advice="Ask again soon."
            )
            return refusal_response(busy)
        await self._places.acquire()
        try:
            asked = await read_form(request, self._settings)
        except BaseException as error:
            self._places.release()
            if isinstance(error, Refusal):
                return refusal_response(error)
            raise
        return _Stream(self._events(asked), self._places)

    async def _events(self, asked: Asked) -> AsyncIterator[bytes]:
        try:
            # Leaving it, for whatever reason, cancels the call: a browser that leaves ends the work.
            async with self._client.stream(list(asked.visuals), asked.question, **asked.options) as stream:
                async for event in stream:
                    if isinstance(event, Started):
                        yield _event("started", await asyncio.to_thread(telling.started, event))
                    elif isinstance(event, TextDelta) and event.text:
                        yield _event("delta", {"text": event.text})
                yield _event("finished", telling.finished(stream.answer))
        except VScanError as error:
            yield _event("failed", told_of(error, ", ".join(self._settings.decoder_address)).to_dict())


class _Stream(StreamingResponse):
    """Events to a browser; gives its place back when they end, however they do."""

    def __init__(self, events: AsyncIterator[bytes], places: asyncio.Semaphore) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._events, self._places = events, places

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends them."""
        try:
            async with aclosing(self._events):  # type: ignore[type-var]
                await super().__call__(scope, receive, send)
        finally:
            self._places.release()


def _event(name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()
