"""Gathers jobs of many requests into batches for one worker. Knows nothing of what a job is; no torch.

    submit ──▶ queue ──▶ batch (at most max_size) ──▶ result, error
                 │       in one thread, one batch at a time
                 └── cancelled: taken out of the queue

Every submitted job ends exactly once: with its result, an error or its caller's cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from encoder_service.waiting_room import Place
from vscan.errors import InternalError, Unavailable, VScanError

J = TypeVar("J")
R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting(Generic[J, R]):
    job: J
    size: int
    since: float  # monotonic seconds
    place: Place
    result: asyncio.Future[R]


class Batcher(Generic[J, R]):
    """Runs jobs in batches. Belongs to one event loop.

    Args:
        run: makes one result for each job, in their order; runs in the worker's thread.
        max_size: largest sum of the jobs' sizes in a batch; a larger job goes alone.
        max_wait_ms: how long a job waits for company while the worker is idle.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R]],
        *,
        max_size: int,
        max_wait_ms: float,
    ) -> None:
        self._run = run
        self._max_size = max_size
        self._max_wait_seconds = max_wait_ms / 1000
        self._on_death: Callable[[str], None] = lambda why: None
        self._queue: deque[_Waiting[J, R]] = deque()
        self._changed = asyncio.Event()
        self._ended: VScanError | None = None  # why no job is taken any more
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._task: asyncio.Task[None] | None = None

    def start(self, on_death: Callable[[str], None] = lambda why: None) -> None:
        """Starts the worker, inside a running event loop. `on_death` is told, once, why it will run nothing more."""
        self._on_death = on_death
        self._task = asyncio.create_task(self._work())

    def refuse_if_ended(self) -> None:
        """Raises Unavailable: the worker has ended."""
        if self._ended is not None:
            raise Unavailable(self._ended.message)

    async def submit(self, job: J, size: int, place: Place) -> R:
        """Queues a job, which gives up its place when its batch starts, and waits for its result.

        Cancelling the wait takes the job out of the queue.

        Raises:
            VScanError: whatever `run` raised of ours; InternalError for anything else; Unavailable if the worker has ended.
        """
        self.refuse_if_ended()
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, size, time.monotonic(), place, result)
        self._queue.append(waiting)
        self._changed.set()
        try:
            return await result
        finally:
            if not result.done() or result.cancelled():
                self._withdraw(waiting)

    async def aclose(self) -> None:
        """Runs nothing more: who waits gets Unavailable, the batch that runs is waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        end: VScanError = Unavailable("the service is stopping")
        try:
            while True:
                batch = await self._next_batch()
                if batch and (fatal := await self._run_batch(batch)) is not None:
                    end = InternalError("the device worker has died")
                    log.critical("the device worker has died", exc_info=fatal)
                    return
        except Exception:
            end = InternalError("the device worker has died")
            log.critical("the batcher has failed", exc_info=True)
        finally:
            self._end(end)

    async def _next_batch(self) -> list[_Waiting[J, R]]:
        """The oldest jobs that fit together, once they are enough or the oldest has waited long enough."""
        while True:
            self._changed.clear()
            if not self._queue:
                await self._changed.wait()
                continue
            left = self._queue[0].since + self._max_wait_seconds - time.monotonic()
            if left <= 0 or sum(waiting.size for waiting in self._queue) >= self._max_size:
                return self._take()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return self._take()

    def _take(self) -> list[_Waiting[J, R]]:
        batch: list[_Waiting[J, R]] = []
        room = self._max_size
        while self._queue and (not batch or self._queue[0].size <= room):
            waiting = self._queue.popleft()
            waiting.place.started()
            room -= waiting.size
            batch.append(waiting)
        return batch

    async def _run_batch(self, batch: list[_Waiting[J, R]]) -> BaseException | None:
        """Runs a batch and ends its jobs. Returns what killed the worker, if something did."""
        outcome = asyncio.get_running_loop().run_in_executor(self._thread, _attempt, self._run, [w.job for w in batch])
        try:
            results = await asyncio.shield(outcome)
        except asyncio.CancelledError:  # closing: the thread cannot be stopped, and its jobs deserve their results
            _finish(batch, await outcome)
            raise
        _finish(batch, results)
        return results if isinstance(results, BaseException) and not isinstance(results, Exception) else None

    def _end(self, error: VScanError) -> None:
        self._ended = error
        while self._queue:
            waiting = self._queue.popleft()
            waiting.place.leave()
            _fail(waiting, error)
        if isinstance(error, InternalError):
            self._on_death(error.message)

    def _withdraw(self, waiting: _Waiting[J, R]) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
            self._changed.set()


def _attempt(run: Callable[[Sequence[J]], Sequence[R]], jobs: Sequence[J]) -> list[R] | BaseException:
    """Results or what was raised, as a value: not every exception may pass through a future."""
    try:
        results = list(run(jobs))
        if len(results) != len(jobs):
            return RuntimeError(f"{len(results)} results for {len(jobs)} jobs")
        return results
    except BaseException as error:
        return error


def _finish(batch: Sequence[_Waiting[J, R]], outcome: list[R] | BaseException) -> None:
    if isinstance(outcome, BaseException):
        if not isinstance(outcome, VScanError):
            log.error("a device pass failed", exc_info=outcome)
        for waiting in batch:
            _fail(waiting, outcome)
        return
    for waiting, result in zip(batch, outcome, strict=True):
        if not waiting.result.done():
            waiting.result.set_result(result)


def _fail(waiting: _Waiting[J, R], error: BaseException) -> None:
    """Each job gets an error of its own: a shared one would collect every waiter's traceback."""
    if waiting.result.done():
        return
    waiting.result.set_exception(error.copy() if isinstance(error, VScanError) else InternalError("the device pass failed"))
