"""How a hostile case speaks HTTP, by hand, and whether what came back is as it should be."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.hostile.case import Case

CHAT = "/v1/chat/completions"
MODEL = "attacked"  # what the deployment calls its model
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_READ_BYTES = 65_536

# Speaks to a host and a port; returns what came back.
Talk = Callable[[str, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCase(Case):
    """Something for the gateway.

    Attributes:
        talk: sends it.
        statuses: what may come back; 0: nothing, the connection is closed.
        param: of the error; None where nobody's field is at fault, or it does not matter whose.
        answers: how many may come at most: one more answers what was smuggled in.
    """

    talk: Talk
    statuses: tuple[int, ...]
    param: str | None = None
    answers: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """What came back: the status (0: nothing) and the error of it, or the answer."""

    status: int
    text: str = ""
    param: str = ""
    fault: str = ""

    @property
    def name(self) -> str:
        """As the report has it."""
        return {0: "closed", 200: "OK"}.get(self.status, f"HTTP {self.status}")


def said(raw: bytes, case: HttpCase) -> Said:
    """What came back, judged."""
    lines = [found for found in _STATUS_LINE.finditer(raw) if found[1] != b"100"]
    statuses = [int(line[1]) for line in lines]
    if not statuses:
        return Said(0, fault="" if 0 in case.statuses else "no answer")
    if len(statuses) > case.answers:
        return Said(statuses[0], fault=f"{len(statuses)} answers")
    body = raw[lines[-1].end() :].partition(b"\r\n\r\n")[2]
    status, text, param = statuses[-1], body.decode(errors="backslashreplace"), ""
    if status not in case.statuses:
        return Said(status, text[:1000], fault="ended otherwise than expected")
    if status != 200:
        text, param, fault = _error(text, status)
        if not fault and case.param is not None and not param.startswith(case.param):
            fault = "names another field"
        return Said(status, text, param, fault)
    return Said(status)


def _error(text: str, status: int) -> tuple[str, str, str]:
    """Message, field, and what is wrong with their form. What is no HTTP is answered by the server's own line."""
    if "Invalid HTTP request received." in text[:40]:
        return "", "", "" if status == 400 else "no error of OpenAI's form"
    try:
        error = json.loads(text)["error"]
        message, param = str(error["message"]), error["param"] or ""
        good = isinstance(error["type"], str) and isinstance(error["code"], str)
    except (ValueError, KeyError, TypeError):
        return text[:1000], "", "no error of OpenAI's form"
    return message, param, "" if good else "no error of OpenAI's form"


def answer_of(raw: bytes) -> str:
    """The text of an answer; of what is none all that came."""
    status, _, rest = raw.partition(b"\r\n")
    try:
        return str(json.loads(rest.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return f"{status.decode(errors='backslashreplace')}: {rest[:500].decode(errors='backslashreplace')}"


def question(text: str, **changes: Any) -> dict[str, Any]:
    """A body that is served."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **changes}


def head(headers: Mapping[str, object], *, method: str = "POST", path: str = CHAT) -> bytes:
    """Of a request that is the last on its connection, with these headers too, or instead of the usual ones."""
    usual = {"Host": "localhost", "Content-Type": "application/json", "Connection": "close"}
    lines = [f"{name}: {value}\r\n" for name, value in (usual | dict(headers)).items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def post(body: bytes | dict[str, Any], headers: Mapping[str, object] | None = None, *, close: bool = True) -> bytes:
    """A whole request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    ending = {} if close else {"Connection": "keep-alive"}
    return head({"Content-Length": len(data), **ending, **(headers or {})}) + data


def exchange(raw: bytes) -> Talk:
    """Sends it, and reads until the other side closes."""

    async def talk(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        sending = asyncio.create_task(_send(writer, raw))
        try:
            return await _all(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.transport.abort()

    return talk


def half_closed(raw: bytes) -> Talk:
    """Sends it, says that nothing more comes, and reads until the other side closes too."""

    async def talk(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            await _send(writer, raw)
            writer.write_eof()
            return await _all(reader)
        finally:
            writer.transport.abort()

    return talk


def abandoned(raw: bytes, *, times: int = 1) -> Talk:
    """Sends it over so many connections, and is gone."""

    async def one(host: str, port: int) -> None:
        _, writer = await asyncio.open_connection(host, port)
        await _send(writer, raw)
        writer.transport.abort()

    async def talk(host: str, port: int) -> bytes:
        await asyncio.gather(*(one(host, port) for _ in range(times)))
        return b""

    return talk


async def _send(writer: Writer, raw: bytes) -> None:
    with suppress(ConnectionError):  # it may hang up on such a caller
        writer.write(raw)
        await writer.drain()


async def _all(reader: Reader) -> bytes:
    came = bytearray()
    with suppress(ConnectionError):
        while piece := await reader.read(_READ_BYTES):
            came += piece
    return bytes(came)
