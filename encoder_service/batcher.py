"""Gathers jobs of many requests into batches for one worker. Knows nothing of what a job is; no torch.

    submit ──▶ queue ──▶ batch (at most max_size) ──▶ begun ──────▶ ended ──▶ result, error
                 │       while fewer than max_begun    one thread    another
                 └── cancelled: taken out of the queue

A device works on behind its callers' backs: with two batches begun, it has the next one's work while what it made of the last
one is copied and told. Every submitted job ends exactly once: with its result, an error or its caller's cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any, Generic, TypeGuard, TypeVar

from encoder_service.waiting_room import Place
from vscan.errors import InternalError, Unavailable, VScanError
from vscan.heartbeat import Heartbeat

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")
# Waits for the results of a batch that was begun, one for each job, in their order.
Ending = Callable[[], Sequence[R]]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting(Generic[J, R]):
    job: J
    size: int
    since: float  # monotonic seconds
    place: Place
    result: asyncio.Future[R]


class _Worker:
    """A thread, and whether it gets anywhere."""

    def __init__(self, name: str, thread_name: str) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self.heart = Heartbeat(name, threads=thread_name)


class Batcher(Generic[J, R]):
    """Runs jobs in batches. Belongs to one event loop.

    Args:
        begin: begins a batch; runs in the worker's thread. What it returns runs after it there, or in a thread of its own where
            more than one batch is begun.
        max_size: largest sum of the jobs' sizes in a batch; a larger job goes alone.
        max_wait_ms: how long a job waits for company while the worker is idle.
        max_begun: batches that may be begun and have not ended.
    """

    def __init__(
        self,
        begin: Callable[[Sequence[J]], Ending[R]],
        *,
        max_size: int,
        max_wait_ms: float,
        max_begun: int = 1,
    ) -> None:
        self._begin = begin
        self._max_size = max_size
        self._max_wait_seconds = max_wait_ms / 1000
        self._on_death: Callable[[str], None] = lambda why: None
        self._queue: deque[_Waiting[J, R]] = deque()
        self._changed = asyncio.Event()
        self._ended: VScanError | None = None  # why no job is taken any more
        self._max_begun = max_begun
        self._may_begin = asyncio.Semaphore(max_begun)
        self._begun: set[asyncio.Task[None]] = set()
        self._beginning = _Worker("the device worker", "device")
        self._ending = _Worker("the worker that waits for results", "results")
        self._task: asyncio.Task[None] | None = None

    def start(self, on_death: Callable[[str], None] = lambda why: None) -> None:
        """Starts the worker, inside a running event loop. `on_death` is told, once, why it will run nothing more."""
        self._on_death = on_death
        self._task = asyncio.create_task(self._work())

    @property
    def hearts(self) -> Sequence[Heartbeat]:
        """Of the threads that batches run in."""
        return self._beginning.heart, self._ending.heart

    def refuse_if_ended(self) -> None:
        """Raises Unavailable: the worker has ended."""
        if self._ended is not None:
            raise Unavailable(self._ended.message)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs something else in the worker's thread, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._beginning.thread, work)

    async def submit(self, job: J, size: int, place: Place) -> R:
        """Queues a job, which gives up its place when its batch starts, and waits for its result.

        Cancelling the wait takes the job out of the queue.

        Raises:
            VScanError: whatever the batch raised of ours; InternalError for anything else; Unavailable if the worker has ended.
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
        """Begins nothing more: who waits gets Unavailable, batches that were begun are waited for."""
        self._end(Unavailable("the service is stopping"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for worker in (self._beginning, self._ending):
            await asyncio.to_thread(worker.thread.shutdown)

    async def _work(self) -> None:
        try:
            while True:
                await self._may_begin.acquire()
                batch = await self._next_batch()
                begun = asyncio.Event()  # the next batch is chosen once the thread has time for it
                task = asyncio.create_task(self._run(batch, begun))
                self._begun.add(task)
                task.add_done_callback(self._begun.discard)
                await begun.wait()
        except Exception:
            log.critical("the batcher has failed", exc_info=True)
            self._end(_death())
        finally:
            await self._all_ended()

    async def _next_batch(self) -> list[_Waiting[J, R]]:
        """The oldest jobs that fit together, once they are enough or the oldest has waited long enough."""
        while True:
            self._changed.clear()
            left = self._left_seconds()
            if left is not None and left <= 0:
                return self._take()
            # Not wait_for: Python 3.11's forgets that it was cancelled where what it waits for comes at the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _left_seconds(self) -> float | None:
        """For how long the oldest is to wait for company; None: nobody waits."""
        if not self._queue:
            return None
        if sum(waiting.size for waiting in self._queue) >= self._max_size:
            return 0.0
        return self._queue[0].since + self._max_wait_seconds - time.monotonic()

    def _take(self) -> list[_Waiting[J, R]]:
        batch: list[_Waiting[J, R]] = []
        room = self._max_size
        while self._queue and (not batch or self._queue[0].size <= room):
            waiting = self._queue.popleft()
            waiting.place.started()
            room -= waiting.size
            batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting[J, R]], begun: asyncio.Event) -> None:
        """Runs a batch and ends its jobs."""
        outcome = await self._passed([waiting.job for waiting in batch], begun)
        if len(batch) > 1 and isinstance(outcome, Exception) and not isinstance(outcome, VScanError):
            log.warning("a pass of %d jobs failed: each of them runs again alone", len(batch), exc_info=outcome)
            for waiting in batch:
                if waiting.result.done():
                    continue
                if not _is_fatal(outcome):
                    outcome = await self._passed([waiting.job], begun)
                _finish([waiting], outcome)
        else:
            _finish(batch, outcome)
        self._may_begin.release()
        if _is_fatal(outcome) and self._task is not None:
            log.critical("the device worker has died", exc_info=outcome)
            self._end(_death())
            self._task.cancel()

    async def _passed(self, jobs: Sequence[J], begun: asyncio.Event) -> list[R] | BaseException:
        """The results of one pass, or what was raised."""
        if self._max_begun == 1:  # the next batch waits for the end anyway
            outcome = await self._outcome(self._beginning, lambda: _ended(self._begin(jobs), len(jobs)))
            begun.set()
            return outcome
        ending = await self._outcome(self._beginning, self._begin, jobs)
        begun.set()
        if isinstance(ending, BaseException):
            return ending
        return await self._outcome(self._ending, _ended, ending, len(jobs))

    async def _all_ended(self) -> None:
        """Threads cannot be stopped, and their jobs deserve their results: also where one is told again to close."""
        while self._begun:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(self._begun)

    async def _outcome(self, worker: _Worker, work: Callable[..., T], *arguments: Any) -> T | BaseException:
        return await asyncio.get_running_loop().run_in_executor(worker.thread, _attempt, worker.heart, work, *arguments)

    def _end(self, error: VScanError) -> None:
        """Takes no more jobs, and fails those that wait. A second time does nothing."""
        if self._ended is not None:
            return
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


def _attempt(heart: Heartbeat, work: Callable[..., T], *arguments: Any) -> T | BaseException:
    """What comes of it or what was raised, as a value: not every exception may pass through a future."""
    heart.begin()
    try:
        return work(*arguments)
    except BaseException as error:
        clear_frames(error.__traceback__)  # a pass that failed for want of memory would keep its tensors from the next one
        return error
    finally:
        heart.rest()


def _death() -> VScanError:
    return InternalError("the device worker has died")


def _is_fatal(outcome: object) -> TypeGuard[BaseException]:
    """Whether the worker does not outlive it."""
    return isinstance(outcome, BaseException) and not isinstance(outcome, Exception)


def _ended(ending: Ending[R], count: int) -> list[R]:
    results = list(ending())
    if len(results) != count:
        raise RuntimeError(f"{len(results)} results for {count} jobs")
    return results


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
