"""A TCP proxy with faults at will: between a cache and its Redis, or any other two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

_CHUNK_BYTES = 65_536


class Fault(Enum):
    """What the proxy does to its connections."""

    NONE = "none"
    SLOW = "slow"  # each answer comes late
    REFUSE = "refuse"  # connections break as soon as they are made
    DROP = "drop"  # an answer breaks off in its middle, and the connection with it
    BLACK_HOLE = "black hole"  # connections stand, nothing is answered


class FaultProxy:
    """Forwards loopback connections to a port. An async context manager; belongs to one event loop.

    async with FaultProxy(redis.port) as proxy:
        proxy.inject(Fault.SLOW, delay_ms=500)
        ...
        proxy.heal()
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._fault = Fault.NONE
        self._delay_seconds = 0.0
        self._keep_bytes = 0
        self._only_answer: int | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.attempts = 0  # connections made, and packets sent over them
        self.swallowed = 0  # packets that a black hole took

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Redis through it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def inject(self, fault: Fault, *, delay_ms: float = 0, keep_bytes: int = 64, only_answer: int | None = None) -> None:
        """From now on: `delay_ms` for SLOW, for each packet of an answer; `keep_bytes` of a packet still come for DROP.

        `only_answer`: just this packet of those that come now, counted from 1, is dropped; then all is well again.
        """
        self._fault = fault
        self._only_answer = only_answer
        self._delay_seconds = delay_ms / 1000
        self._keep_bytes = keep_bytes
        if fault is Fault.REFUSE:
            self._break_all()

    def heal(self) -> None:
        """No fault from now on. What went through a fault is not to be trusted any more: its connections break."""
        self._fault = Fault.NONE
        self._break_all()

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._break_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _its_turn(self) -> bool:
        if self._only_answer is None:
            return True
        self._only_answer -= 1
        if self._only_answer == 0:
            self._fault, self._only_answer = Fault.NONE, None
            return True
        return False

    def _break_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        self._writers.add(writer)
        if self._fault is Fault.REFUSE:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(to_writer)
            await asyncio.gather(
                self._forward(reader, to_writer, self._asked), self._forward(to_reader, writer, self._answered)
            )
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        through: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await through(data, writer)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _asked(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        if self._fault is Fault.BLACK_HOLE:
            self.swallowed += 1
        else:
            writer.write(data)

    async def _answered(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.SLOW:
            await asyncio.sleep(self._delay_seconds)
        if self._fault is Fault.DROP and len(data) > self._keep_bytes and self._its_turn():
            writer.write(data[: self._keep_bytes])
            await writer.drain()
            writer.transport.abort()
        elif self._fault is not Fault.BLACK_HOLE:
            writer.write(data)
