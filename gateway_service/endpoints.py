"""What each path does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway_service.callers import RETRY_DELAY_MS, Callers
from gateway_service.chat_request import ChatRequest, read_chat
from gateway_service.completions import Completion
from gateway_service.config import GatewaySettings
from gateway_service.conversation import Conversations, PatientSend, read_body, too_large
from gateway_service.http_errors import HttpRefusal, error_body
from gateway_service.json_fields import parse_object
from gateway_service.served_model import ServedModel, refuse_model
from vscan.errors import InvalidArgument, ResourceExhausted, Unauthenticated, Unavailable, VScanError
from vscan.rpc.request_room import RequestRoom
from vscan_client import AsyncAnswerStream, AsyncClient, Started, TextDelta

_NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that would hold pieces back
]


class Gateway:
    """Asks decoders for its callers.

    Args:
        settings: the limits.
        client: of callers that show no token, and for looking after the decoder.
    """

    def __init__(self, settings: GatewaySettings, client: AsyncClient) -> None:
        self._settings, self._client = settings, client
        self._callers = Callers(
            client,
            settings.share,
            require_token=settings.require_token,
            most=settings.max_callers,
            remembered_s=settings.describe_seconds,
        )
        self._model = ServedModel(remembered_s=settings.describe_seconds)
        self._room = RequestRoom(settings.max_bodies_bytes)
        self._served = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.conversations = Conversations()
        self.stopping = False

    async def idle(self) -> None:
        """Returns once no request is being served."""
        await self._idle.wait()

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/chat/completions`."""
        request = Request(scope, receive)
        patient = PatientSend(scope, send, self._settings.client_patience_seconds)
        with self._place():
            caller = await self._callers.caller_of(request.headers)
            size = self._size(request)
            with caller.holding(size), self._room.holding(size):
                asked = await self._read(request)
                work = self._answer(caller.client, asked, scope, receive, patient)
                try:
                    await self.conversations.unless_the_caller_leaves(receive, work)
                except VScanError as error:
                    told = asked.renamed(error) if isinstance(error, InvalidArgument) else error
                    if not patient.started:
                        raise told from error
                    await _send_event(patient, error_body(told))
                    await patient({"type": "http.response.body", "body": b""})

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models`, and `GET /v1/models/{id}`."""
        request = Request(scope, receive)
        with self._place():
            caller = await self._callers.caller_of(request.headers)
            entry = self._model.entry(await self._model.ask(caller.client))
        wanted = request.path_params.get("id")
        if wanted is not None and wanted != entry["id"]:
            refuse_model(wanted)
        await JSONResponse({"object": "list", "data": [entry]} if wanted is None else entry)(scope, receive, send)

    async def alive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /healthz`: the process serves."""
        await JSONResponse({"status": "ok"})(scope, receive, send)

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /readyz`: it takes questions, and its decoder is there. One that refuses to describe itself to us is there."""
        if self.stopping:
            raise Unavailable("the gateway is stopping")
        await self._callers.check_decoder()
        with suppress(Unauthenticated):
            await self._model.described(self._client)
        await JSONResponse({"status": "ok"})(scope, receive, send)

    async def _read(self, request: Request) -> ChatRequest:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # Also what keeps pages of other origins out: a browser sends JSON to a stranger only if that allows it.
            raise HttpRefusal(415, "unsupported_media_type", "content-type: application/json is needed")
        limit, patience_s = self._settings.max_body_bytes, self._settings.client_patience_seconds
        body = await read_body(request, max_bytes=limit, patience_s=patience_s)
        # Base64, hashes and JSON of many megabytes: not on the event loop, where all answers are passed on.
        most, depth = self._settings.max_json_values, self._settings.max_json_depth
        return await asyncio.to_thread(lambda: read_chat(parse_object(body, max_values=most, max_depth=depth)))

    async def _answer(self, client: AsyncClient, asked: ChatRequest, scope: Scope, receive: Receive, send: PatientSend) -> None:
        known = await self._model.check(client, asked.model)
        completion = Completion(asked, known.pair_fingerprint)
        async with client.stream_chat(asked.messages, **asked.options) as stream:
            if asked.stream:
                await _send_stream(send, stream, completion)
                return
            async for _ in stream:
                pass
        whole = completion.whole(stream.answer)
        await JSONResponse(whole, headers=_request_id(stream.answer.request_id))(scope, receive, send)

    def _size(self, request: Request) -> int:
        """Bytes to hold for a body: as many as it says, or as it may have at most."""
        said = request.headers.get("content-length", "")
        limit = self._settings.max_body_bytes
        if not (said.isascii() and said.isdigit()):
            return limit
        if int(said) > limit:
            raise too_large(limit)
        return int(said)

    @contextmanager
    def _place(self) -> Iterator[None]:
        most = self._settings.max_concurrent_requests
        if self._served >= most:
            raise ResourceExhausted(f"{most} requests are being served already", retry_delay_ms=RETRY_DELAY_MS)
        self._served += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._served -= 1
            if not self._served:
                self._idle.set()


async def _send_stream(send: PatientSend, stream: AsyncAnswerStream, completion: Completion) -> None:
    """Nothing is sent before the decoder has accepted the request, so that its refusals have their status."""
    async for event in stream:
        if isinstance(event, Started):
            named = [(name.encode(), value.encode()) for name, value in _request_id(event.request_id).items()]
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS + named})
            completion.begin(event)
        elif isinstance(event, TextDelta):
            for chunk in completion.more(event):
                await _send_event(send, chunk)
    for chunk in completion.last(stream.answer):
        await _send_event(send, chunk)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _request_id(name: str) -> dict[str, str]:
    """The decoder's name of a request as the header that OpenAI's clients show; nothing where it could not stand in one."""
    return {"x-request-id": name} if _NAME.fullmatch(name) else {}


async def _send_event(send: PatientSend, data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})
