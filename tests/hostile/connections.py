"""What comes over a connection below gRPC: bytes that are no HTTP/2, and HTTP/2 that no client writes.

The services' transport is gRPC's own, with limits of its own; what is tried here is that they hold, and that who comes next is
served.
"""

from __future__ import annotations

import asyncio
import random
import struct
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.hostile.case import Case, ConnectionCase

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
_PATH = b"/vscan.v1.Decoder/Generate"
# POST, http, then literals: :path, content-type, te (RFC 7541).
_CALL = b"\x83\x86\x04" + bytes([len(_PATH)]) + _PATH + b"\x0f\x10\x10application/grpc" + b"\x00\x02te\x08trailers"
_READ_SECONDS = 0.5

Talk = Callable[[str, int], Awaitable[None]]


def connection_cases() -> list[Case]:
    """All of them."""
    return [ConnectionCase(family="connections", name=name, talk=talk) for name, talk in _TALKS.items()]


def frame(kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Of HTTP/2 (RFC 9113)."""
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def _says(*pieces: bytes) -> Talk:
    """Sends these, reads for a moment what comes, and leaves."""

    async def talk(host: str, port: int) -> None:
        async with _connected(host, port) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await _read_a_moment(reader)

    return talk


@asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[Reader, Writer]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        with suppress(ConnectionError):  # the service may hang up on such a caller
            yield reader, writer
    finally:
        writer.transport.abort()


async def _read_a_moment(reader: Reader) -> None:
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_READ_SECONDS):
            while await reader.read(65_536):
                pass


async def _slow_loris(host: str, port: int) -> None:
    """A byte at a time, from ten connections; a call that never gets its message."""
    call = PREFACE + frame(SETTINGS) + frame(HEADERS, _CALL, flags=END_HEADERS, stream=1)

    async def one() -> None:
        async with _connected(host, port) as (reader, writer):
            for byte in call:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
            await _read_a_moment(reader)

    await asyncio.gather(*(one() for _ in range(10)))


async def _many_connections(host: str, port: int) -> None:
    """Three hundred that say nothing but the preface."""
    streams = [await asyncio.open_connection(host, port) for _ in range(300)]
    for _, writer in streams:
        writer.write(PREFACE + frame(SETTINGS))
    await asyncio.sleep(_READ_SECONDS)
    for _, writer in streams:
        writer.transport.abort()


def _open_streams(count: int, *, reset: bool = False) -> bytes:
    pieces = [PREFACE, frame(SETTINGS)]
    for index in range(count):
        stream = 2 * index + 1
        pieces.append(frame(HEADERS, _CALL, flags=END_HEADERS, stream=stream))
        if reset:
            pieces.append(frame(RESET, struct.pack(">I", 8), stream=stream))
    return b"".join(pieces)


def _headers_without_end() -> list[bytes]:
    """A block of headers that goes on for 16 MB."""
    literal = b"\x00\x7f\x80\x01" + b"n" * 255 + b"\x7f\x80\x01" + b"v" * 255
    more = frame(CONTINUATION, literal * 30, stream=1)
    return [PREFACE + frame(SETTINGS) + frame(HEADERS, _CALL, stream=1), *[more * 10] * 100]


def _message(data: bytes, length: int | None = None, compressed: bool = False) -> bytes:
    """A call with a message of gRPC, in frames of 16 KiB."""
    framed = bytes([compressed]) + struct.pack(">I", len(data) if length is None else length) + data
    frames = [frame(DATA, framed[at : at + 16_000], stream=1) for at in range(0, len(framed), 16_000)]
    return PREFACE + frame(SETTINGS) + frame(HEADERS, _CALL, flags=END_HEADERS, stream=1) + b"".join(frames)


_TALKS: dict[str, Talk] = {
    "noise": _says(random.Random(0).randbytes(65_536)),
    "nothing": _says(),
    "HTTP/1.1": _says(b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
    "the beginning of TLS": _says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "Redis": _says(b"*1\r\n$8\r\nFLUSHALL\r\n"),
    "half a preface": _says(PREFACE[:12]),
    "a preface and then nothing": _says(PREFACE),
    "a preface and then noise": _says(PREFACE + random.Random(1).randbytes(65_536)),
    "a frame that claims 16 MB": _says(PREFACE + frame(SETTINGS), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(65_536)),
    "a window of nothing": _says(PREFACE + frame(SETTINGS, struct.pack(">HI", 4, 0)), frame(HEADERS, _CALL, flags=5, stream=1)),
    "a window that overflows": _says(PREFACE + frame(SETTINGS), frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1)) * 3),
    "10,000 settings": _says(PREFACE + frame(SETTINGS, struct.pack(">HI", 3, 100)) * 10_000),
    "10,000 pings": _says(PREFACE + frame(SETTINGS), frame(PING, bytes(8)) * 10_000),
    "5,000 open calls without a message": _says(_open_streams(5000)),
    "20,000 calls opened and reset": _says(_open_streams(20_000, reset=True)),
    "headers without end": _says(*_headers_without_end()),
    "an index of headers that is not there": _says(
        PREFACE + frame(SETTINGS), frame(HEADERS, b"\xff\xff\xff\x7f", flags=5, stream=1)
    ),
    "a message that claims 4 GB": _says(_message(b"x", length=2**32 - 1)),
    "a message of which half comes": _says(_message(bytes(30_000), length=60_000)),
    "a compressed message without an encoding": _says(_message(b"\x1f\x8b" + bytes(100), compressed=True)),
    "a byte at a time, from ten": _slow_loris,
    "300 connections that say nothing": _many_connections,
}
