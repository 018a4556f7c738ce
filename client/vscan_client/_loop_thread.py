"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from vscan.errors import Cancelled

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for any number of threads until it is closed; then what still runs is cancelled and the thread ends.

    A coroutine runs in a copy of its caller's context, so the caller's trace goes on in it.
    """

    def __init__(self, name: str) -> None:
        running: Future[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = Future()
        # A daemon, so that a client that was never closed does not keep the program from ending.
        self._thread = threading.Thread(target=lambda: asyncio.run(_until_stopped(running)), name=name, daemon=True)
        self._thread.start()
        self._loop, stop = running.result()
        # Nor must one that was forgotten leave its thread behind.
        self._stop = weakref.finalize(self, stop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. If the waiting is interrupted (Ctrl-C) the coroutine is cancelled.

        Raises:
            Cancelled: the thread was closed before or meanwhile.
        """
        if self.closed:
            coroutine.close()
            raise Cancelled("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._stop.alive

    def close(self) -> None:
        """Ends the thread. Safe to call again, and from any thread."""
        self._stop()
        self._thread.join()


async def _until_stopped(running: Future[tuple[asyncio.AbstractEventLoop, Callable[[], None]]]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    stopped = asyncio.Event()
    running.set_result((loop, lambda: _set_from_any_thread(loop, stopped)))
    await stopped.wait()


def _set_from_any_thread(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(stopped.set)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Older releases of gRPC wake every loop of the process for an event of one; the others find nothing to read. Harmless.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
