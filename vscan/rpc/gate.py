"""Lets calls in: a bounded number at once, none while the server stops; and knows when the last one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from vscan.errors import ResourceExhausted, Unavailable
from vscan.rpc.handlers import AroundInterceptor, Call

_RETRY_DELAY_MS = 200


class Gate(AroundInterceptor):
    """An interceptor; its other methods are the server's."""

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._running: set[asyncio.Task[object]] = set()
        self._evicted: set[asyncio.Task[object]] = set()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Calls being served."""
        return len(self._running)

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Holds a place for the call."""
        task = self._enter()
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._evicted:
                raise
            task.uncancel()  # it was this gate's doing: the caller gets an error that says so
            raise Unavailable("the service stopped before the call ended") from None
        finally:
            self._leave(task)

    def close(self) -> None:
        """Lets nobody in any more."""
        self._closed = True

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Waits until no call runs; False if that took too long."""
        # Not wait_for: Python 3.11's forgets that it was cancelled where what it waits for comes at the same moment.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        return not self._running

    def evict(self) -> int:
        """Cancels the calls that still run, and returns how many there were."""
        still_running = self._running - self._evicted
        for task in still_running:
            self._evicted.add(task)
            task.cancel()
        return len(still_running)

    def _enter(self) -> asyncio.Task[object]:
        if self._closed:
            raise Unavailable("the service is stopping")
        if len(self._running) >= self._max_calls:
            raise ResourceExhausted(f"{self._max_calls} calls are being served already", retry_delay_ms=_RETRY_DELAY_MS)
        task = asyncio.current_task()
        assert task is not None  # grpc.aio serves every call in a task
        self._running.add(task)
        self._idle.clear()
        return task

    def _leave(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        self._evicted.discard(task)
        if not self._running:
            self._idle.set()
