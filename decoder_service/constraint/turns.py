"""Threads that tenants use in turns: one that has much to be done holds up the others by one piece of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Belongs to one event loop.

    a: 1 2 3 4   b: 5   threads: 2      1 and 2 run; 5 is next, then 3
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._waiting: OrderedDict[str, deque[tuple[Callable[[], T], asyncio.Future[T]]]] = OrderedDict()

    def run(self, tenant: str, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` will have returned in a thread, once it was the tenant's turn."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((work, done))
        self._begin()
        return done

    def close(self) -> None:
        """Begins nothing more; does not wait for what runs. What waited is cancelled."""
        waiting = [done for queue in self._waiting.values() for _, done in queue]
        self._waiting.clear()
        self._threads.shutdown(wait=False)
        for done in waiting:
            done.cancel()

    def _begin(self) -> None:
        while self._free and self._waiting:
            tenant, queue = self._waiting.popitem(last=False)
            work, done = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # behind the others
            self._free -= 1
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
            running.add_done_callback(partial(self._ended, done))

    def _ended(self, done: asyncio.Future[T], running: asyncio.Future[T]) -> None:
        self._free += 1
        if running.cancelled():
            done.cancel()
        elif done.cancelled():
            running.exception()  # nobody asks for it any more
        elif error := running.exception():
            done.set_exception(error)
        else:
            done.set_result(running.result())
        self._begin()
