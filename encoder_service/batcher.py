"""Gathers jobs of many requests into batches for one worker. Knows nothing of what a job is; no torch.

    admit ──▶ waiting (at most max_waiting, counted from admission) ──▶ batch (at most max_size) ──▶ result, error
                 │                                                         in one thread, one batch at a time
                 └── cancelled: taken out of the queue

Every submitted job ends exactly once: with its result, an error or its caller's cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from vscan.errors import InternalError, ResourceExhausted, Unavailable, VScanError

J = TypeVar("J")
R = TypeVar("R")
_MIN_RETRY_DELAY_MS = 50

log = logging.getLogger(__name__)


class Admission:
    """A place among those who wait. Given up when the job's batch starts, or its caller leaves."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def give_up(self) -> None:
        """Frees the place; a second time does nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


@dataclass(slots=True, eq=False)
class _Waiting(Generic[J, R]):
    job: J
    size: int
    since: float  # monotonic seconds
    admission: Admission
    result: asyncio.Future[R]


class Batcher(Generic[J, R]):
    """Runs jobs in batches. Belongs to one event loop.

    Args:
        run: makes one result for each job, in their order; runs in the worker's thread.
        max_size: largest sum of the jobs' sizes in a batch; a larger job goes alone.
        max_wait_ms: how long a job waits for company while the worker is idle.
        max_waiting: how many may wait.
        on_waiting: told of each change of how many wait.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R]],
        *,
        max_size: int,
        max_wait_ms: float,
        max_waiting: int,
        on_waiting: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._run = run
        self._max_size = max_size
        self._max_wait_seconds = max_wait_ms / 1000
        self._max_waiting = max_waiting
        self._on_waiting = on_waiting
        self._on_death: Callable[[str], None] = lambda why: None
        self._admitted = 0
        self._queue: deque[_Waiting[J, R]] = deque()
        self._changed = asyncio.Event()
        self._last_run_ms = 0.0
        self._ended: VScanError | None = None  # why no job is taken any more
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Admitted and not yet in a batch."""
        return self._admitted

    def start(self, on_death: Callable[[str], None] = lambda why: None) -> None:
        """Starts the worker, inside a running event loop. `on_death` is told, once, why it will run nothing more."""
        self._on_death = on_death
        self._task = asyncio.create_task(self._work())

    @contextmanager
    def admit(self) -> Iterator[Admission]:
        """A place among those who wait, from before the job is made until its batch starts.

        Raises:
            ResourceExhausted: too many wait; says when to come back.
            Unavailable: the worker has ended.
        """
        self._refuse_if_ended()
        if self._admitted >= self._max_waiting:
            raise ResourceExhausted(
                f"{self._max_waiting} images wait to be encoded already", retry_delay_ms=self._retry_delay_ms()
            )
        self._count(1)
        admission = Admission(lambda: self._count(-1))
        try:
            yield admission
        finally:
            admission.give_up()

    async def submit(self, job: J, size: int, admission: Admission) -> R:
        """Queues a job and waits for its result. Cancelling the wait takes the job out of the queue.

        Raises:
            VScanError: whatever `run` raised of ours; InternalError for anything else; Unavailable if the worker has ended.
        """
        self._refuse_if_ended()
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, size, time.monotonic(), admission, result)
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
            waiting.admission.give_up()
            room -= waiting.size
            batch.append(waiting)
        return batch

    async def _run_batch(self, batch: list[_Waiting[J, R]]) -> BaseException | None:
        """Runs a batch and ends its jobs. Returns what killed the worker, if something did."""
        began = time.monotonic()
        outcome = asyncio.get_running_loop().run_in_executor(self._thread, _attempt, self._run, [w.job for w in batch])
        try:
            results = await asyncio.shield(outcome)
        except asyncio.CancelledError:  # closing: the thread cannot be stopped, and its jobs deserve their results
            _finish(batch, await outcome)
            raise
        self._last_run_ms = (time.monotonic() - began) * 1000
        _finish(batch, results)
        return results if isinstance(results, BaseException) and not isinstance(results, Exception) else None

    def _end(self, error: VScanError) -> None:
        self._ended = error
        while self._queue:
            waiting = self._queue.popleft()
            waiting.admission.give_up()
            _fail(waiting, error)
        if isinstance(error, InternalError):
            self._on_death(error.message)

    def _refuse_if_ended(self) -> None:
        if self._ended is not None:
            raise Unavailable(self._ended.message)

    def _withdraw(self, waiting: _Waiting[J, R]) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
            self._changed.set()

    def _count(self, change: int) -> None:
        self._admitted += change
        self._on_waiting(change)

    def _retry_delay_ms(self) -> int:
        """About when those who wait now will be done."""
        batches = 1 + self._admitted // self._max_size
        return max(_MIN_RETRY_DELAY_MS, math.ceil(batches * self._last_run_ms))


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
