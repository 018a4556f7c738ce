"""Any server that speaks the OpenAI chat API, with images as data URLs and the answer as server-sent events.

Format: https://platform.openai.com/docs/api-reference/chat-streaming. What servers do differently, and is taken as it comes: a
first chunk with the role alone, chunks without choices, `content` that is null or empty, a last chunk with the usage or none,
comments and blank lines between events, an `error` object instead of a chunk.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studies.load.album import Album
from studies.load.targets.base import Seen
from studies.load.workload import Ask
from vscan.errors import (
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

_DONE = "[DONE]"
_MOST_OF_A_BODY = 300  # characters of an error's body that a message repeats
_SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiOptions:
    """Which server, and how it is asked.

    Attributes:
        url: up to `/v1`.
        model: the name that it is called by there.
        extra: more fields of every request's body, such as `{"ignore_eos": true}` where a server knows it.
        token: a bearer token.
        timeout_s: for one answer.
    """

    url: str
    model: str
    extra: Mapping[str, Any]
    token: str | None = None
    timeout_s: float = 120.0


class OpenAiServer:
    """Asks greedily, over connections that are kept. Raises ModuleNotFoundError without the extra `bench`."""

    def __init__(self, options: OpenAiOptions, album: Album) -> None:
        import httpx2

        self._options, self._album = options, album
        headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(options.timeout_s, connect=5.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._urls: dict[int, str] = {}

    async def ask(self, ask: Ask, seen: Seen) -> None:
        """See `Target`. Tokens are counted by the server; see `Record.miscounted` where it does not."""
        import httpx2

        try:
            async with asyncio.timeout(self._options.timeout_s):
                await self._stream(ask, seen)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise DeadlineExceeded(f"no whole answer within {self._options.timeout_s:g} s") from error
        except (httpx2.SSEError, httpx2.DecodingError) as error:
            raise InternalError(f"{type(error).__name__}: {error}") from error
        except httpx2.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """See `Target`."""
        await self._http.aclose()

    async def _stream(self, ask: Ask, seen: Seen) -> None:
        url = f"{self._options.url.rstrip('/')}/chat/completions"
        ended, usage = False, None
        async with self._http.sse(url, method="POST", json=self._body(ask)) as events:
            if events.response.status_code != 200:
                raise error_of(events.response.status_code, (await events.response.aread()).decode(errors="replace"))
            async for event in events:
                if event.data.strip() == _DONE:
                    break
                if not event.data:
                    continue
                chunk = parse_chunk(event.data)
                usage = chunk.usage or usage
                ended = ended or chunk.ended
                if chunk.has_content:
                    seen.content()
        if not ended:
            raise InternalError("the stream ended before the answer was whole")
        seen.usage(prompt_tokens=_count(usage, "prompt_tokens"), completion_tokens=_count(usage, "completion_tokens"))

    def _body(self, ask: Ask) -> dict[str, Any]:
        images = [{"type": "image_url", "image_url": {"url": self._url(number)}} for number in ask.images]
        body: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": [*images, {"type": "text", "text": ask.question}]}],
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ask.answer_tokens is not None:
            body["max_tokens"] = ask.answer_tokens
        return {**body, **self._options.extra}

    def _url(self, number: int) -> str:
        return self._urls.get(number) or self._urls.setdefault(number, data_url(self._album[number].data or b""))


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event says: whether it has a piece of the answer, whether it ends it, and what was used."""

    has_content: bool
    ended: bool
    usage: dict[str, Any] | None


def parse_chunk(data: str) -> Chunk:
    """Reads one event. Raises InternalError for what is no chunk, and an error that it holds."""
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InternalError(f"a chunk is not JSON: {data[:_MOST_OF_A_BODY]}") from error
    if not isinstance(chunk, dict):
        raise InternalError(f"a chunk is not an object: {data[:_MOST_OF_A_BODY]}")
    if told := chunk.get("error"):
        code = told.get("code") if isinstance(told, dict) else None
        raise error_of(code if isinstance(code, int) else 500, str(told))
    choices, usage = chunk.get("choices") or [], chunk.get("usage") or None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise InternalError(f"a chunk's choices are no list of objects: {data[:_MOST_OF_A_BODY]}")
    deltas = [choice.get("delta") or {} for choice in choices]
    if not all(isinstance(delta, dict) for delta in deltas):
        raise InternalError(f"a chunk's delta is not an object: {data[:_MOST_OF_A_BODY]}")
    has_content = any(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") for delta in deltas)
    ended = any(choice.get("finish_reason") for choice in choices)
    return Chunk(has_content, ended, usage if isinstance(usage, dict) else None)


def _count(usage: dict[str, Any] | None, name: str) -> int | None:
    """What a server says it counted; `None` for what is no count."""
    value = usage.get(name) if usage else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def error_of(status: int, body: str) -> VScanError:
    """An HTTP status as an error of `vscan.errors`, so that failures of all targets are counted alike."""
    text = f"HTTP {status}: {' '.join(body.split())[:_MOST_OF_A_BODY]}"
    if status in (429, 529):
        return ResourceExhausted(text, retry_delay_ms=0)
    kinds: dict[int, type[VScanError]] = {
        401: Unauthenticated,
        403: PermissionDenied,
        404: FailedPrecondition,
        408: DeadlineExceeded,
        502: Unavailable,
        503: Unavailable,
        504: DeadlineExceeded,
    }
    if status in kinds:
        return kinds[status](text)
    return InvalidArgument("request", text) if 400 <= status < 500 else InternalError(text)


def data_url(image: bytes) -> str:
    """The file as a URL; its type from its first bytes."""
    kind = next((kind for signature, kind in _SIGNATURES.items() if image.startswith(signature)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
