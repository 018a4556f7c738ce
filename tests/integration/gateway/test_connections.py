"""Connections of callers who do not do their part: each ends, and takes only its own place meanwhile. No decoder is needed."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_service.wiring import RunningGateway
from tests.support.certificates import Authority
from tests.support.gateway import in_process_gateway
from tests.support.until import until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CLOSED = (ConnectionError, asyncio.IncompleteReadError)
HASTY: dict[str, Any] = {"header_timeout_seconds": 0.2, "client_patience_seconds": 0.2}
REFUSED = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def connected(gateway: RunningGateway, **options: Any) -> AsyncIterator[Streams]:
    host, port = gateway.address.split(":")
    where: dict[str, Any] = {} if "sock" in options else {"host": host, "port": int(port)}
    reader, writer = await asyncio.open_connection(**where, **options)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and the error's code."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    told = json.loads(await reader.readexactly(int(length.split(b":")[1])))
    return int(head.split()[1]), told.get("error", {}).get("code", "")


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return not await reader.read(1)
    except CLOSED:
        return True


async def writes_until_closed(streams: Streams, data: Callable[[], bytes]) -> None:
    """From now and then; returns once the other side has closed the connection."""
    reader, writer = streams
    ending = asyncio.ensure_future(is_closed(reader))

    async def ended() -> bool:
        if not ending.done():
            writer.write(data())
        return ending.done()

    await until(ended, what="the connection to be closed")
    assert ending.result()


async def test_the_rest_of_a_refused_body_is_not_waited_for_for_ever() -> None:
    async with in_process_gateway("127.0.0.1:1", **HASTY) as gateway, connected(gateway) as streams:
        streams[1].write(REFUSED + b"Content-Length: 1000000\r\n\r\n")
        assert await answer(streams[0]) == (404, "not_found")
        await writes_until_closed(streams, lambda: b"x")


async def test_a_refused_body_that_ends_leaves_the_connection_open() -> None:
    async with in_process_gateway("127.0.0.1:1") as gateway, connected(gateway) as (reader, writer):
        writer.write(REFUSED + b"Content-Length: 4\r\n\r\n")
        assert await answer(reader) == (404, "not_found")
        writer.write(b"body" + HEALTH)
        assert await answer(reader) == (200, "")


async def test_what_is_no_http_ends_the_connection_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process_gateway("127.0.0.1:1") as gateway:
        async with connected(gateway) as (reader, writer):
            writer.write(REFUSED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            assert await answer(reader) == (404, "not_found")
            writer.write(b"no chunk\r\n")
            assert await is_closed(reader)
        async with connected(gateway) as (reader, writer):
            writer.write(REFUSED + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n")
            await reader.read()
        async with connected(gateway) as (reader, writer):
            writer.write(b"no http\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_body_of_two_lengths_is_refused_with_its_connection() -> None:
    async with in_process_gateway("127.0.0.1:1") as gateway, connected(gateway) as (reader, writer):
        writer.write(REFUSED + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n" + HEALTH)
        assert await answer(reader) == (400, "invalid_request")
        assert await is_closed(reader)


async def test_answers_that_nobody_takes_end_their_connection() -> None:
    async with in_process_gateway("127.0.0.1:1", **HASTY) as gateway:
        assert gateway.server._listener
        gateway.server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = gateway.address.split(":")
        small.connect((host, int(port)))
        async with connected(gateway, sock=small) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(HEALTH * 900)  # fewer bytes than a head may have, and more answers than wait to be taken
            await until(lambda: gateway.server.connections == 1)
            await until(lambda: gateway.server.connections == 0)


async def test_handshakes_that_do_not_come_count_as_connections_and_end(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("localhost", "127.0.0.1")
    files: dict[str, Any] = {"tls_cert_file": certificate.cert_file, "tls_key_file": certificate.key_file}
    async with in_process_gateway("127.0.0.1:1", max_connections=1, **files, **HASTY) as gateway:
        async with connected(gateway) as (reader, _), connected(gateway) as (one_too_many, _):
            assert await is_closed(one_too_many)
            assert await is_closed(reader)
        await until(lambda: gateway.server.connections == 0)
