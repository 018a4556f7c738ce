"""The batcher: who travels together, and that every job ends exactly once whatever happens."""

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from encoder_service.batcher import Batcher
from encoder_service.waiting_room import WaitingRoom
from vscan.errors import InternalError, InvalidArgument, Unavailable


class Worker:
    """Doubles numbers. While `gate` is closed its thread stands in a batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failure: BaseException | None = None

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        self.entered.set()
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        return [2 * job for job in jobs]

    async def held(self) -> None:
        """Returns once the thread stands in a batch."""
        assert await asyncio.to_thread(self.entered.wait, 60)


class Batching(Batcher[int, int]):
    """A batcher, and those who wait for it."""

    room: WaitingRoom


@asynccontextmanager
async def batching(
    worker: Callable[[Sequence[int]], list[int]], *, on_death: Callable[[str], None] = lambda why: None, **options: object
) -> AsyncIterator[Batching]:
    def begin(jobs: Sequence[int]) -> Callable[[], list[int]]:
        results = worker(jobs)
        return lambda: results

    batcher = Batching(begin, **{"max_size": 4, "max_wait_ms": 0.0} | options)  # type: ignore[arg-type]
    batcher.room = WaitingRoom("numbers", max_places=100, max_bytes=1)
    batcher.start(on_death)
    try:
        yield batcher
    finally:
        if isinstance(worker, Worker):
            worker.gate.set()
        await batcher.aclose()


async def ask(batcher: Batching, job: int, size: int = 1) -> int:
    batcher.refuse_if_ended()
    with batcher.room.enter(0) as place:
        return await batcher.submit(job, size, place)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def queue_up(batcher: Batching, jobs: Sequence[int], size: int = 1) -> list[asyncio.Task[int]]:
    """Asks one after the other, so that the queue has their order."""
    tasks = []
    for job in jobs:
        before = len(batcher.room)
        tasks.append(asyncio.create_task(ask(batcher, job, size)))
        await until(lambda: len(batcher.room) > before)  # noqa: B023
    return tasks


async def test_those_who_wait_while_the_worker_is_busy_go_together_in_order_and_bounded() -> None:
    worker = Worker()
    worker.gate.clear()
    async with batching(worker) as batcher:
        first = asyncio.create_task(ask(batcher, 0))
        await worker.held()
        rest = await queue_up(batcher, [1, 2, 3, 4, 5, 6])
        worker.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12]
        assert worker.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert len(batcher.room) == 0


async def test_sizes_count_and_a_job_over_the_bound_goes_alone() -> None:
    worker = Worker()
    worker.gate.clear()
    async with batching(worker) as batcher:
        first = asyncio.create_task(ask(batcher, 0))
        await worker.held()
        tasks = [*(await queue_up(batcher, [1, 2, 3], size=2)), *(await queue_up(batcher, [4], size=9))]
        worker.gate.set()
        await asyncio.gather(first, *tasks)
        assert worker.batches == [[0], [1, 2], [3], [4]]


async def test_a_full_batch_does_not_wait_for_more() -> None:
    worker = Worker()
    async with batching(worker, max_wait_ms=3_600_000) as batcher:
        assert await asyncio.gather(*(ask(batcher, job) for job in range(4))) == [0, 2, 4, 6]
        assert worker.batches == [[0, 1, 2, 3]]


async def test_a_lone_job_waits_no_longer_than_told() -> None:
    worker = Worker()
    async with batching(worker, max_wait_ms=1, max_size=100) as batcher:
        assert await ask(batcher, 21) == 42


async def test_a_cancelled_job_leaves_the_queue() -> None:
    worker = Worker()
    worker.gate.clear()
    async with batching(worker) as batcher:
        first = asyncio.create_task(ask(batcher, 0))
        await worker.held()
        gone, stays = await queue_up(batcher, [1, 2])
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert len(batcher.room) == 1
        worker.gate.set()
        assert (await first, await stays) == (0, 4)
        assert worker.batches == [[0], [2]]


async def test_a_job_cancelled_in_its_batch_harms_nobody() -> None:
    worker = Worker()
    worker.gate.clear()
    async with batching(worker, max_wait_ms=3_600_000, max_size=2) as batcher:
        gone, stays = (asyncio.create_task(ask(batcher, job)) for job in (1, 2))
        await worker.held()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        worker.gate.set()
        assert await stays == 4
        assert worker.batches == [[1, 2]]


async def test_a_failed_batch_fails_its_jobs_and_no_other() -> None:
    worker = Worker()
    async with batching(worker) as batcher:
        worker.failure = RuntimeError("device memory at 0xdeadbeef")
        with pytest.raises(InternalError, match=r"^the device pass failed$"):
            await ask(batcher, 1)
        worker.failure = InvalidArgument("image", "odd")
        with pytest.raises(InvalidArgument) as caught:
            await ask(batcher, 1)
        assert caught.value is not worker.failure
        worker.failure = None
        assert await ask(batcher, 1) == 2


async def test_a_worker_that_forgets_a_result_fails_the_batch() -> None:
    async with batching(lambda jobs: []) as batcher:
        with pytest.raises(InternalError):
            await ask(batcher, 1)


@pytest.mark.parametrize("death", [SystemExit(3), KeyboardInterrupt()])
async def test_a_dead_worker_fails_all_that_wait_and_lets_nobody_in(death: BaseException) -> None:
    reasons: list[str] = []
    worker = Worker()
    worker.gate.clear()
    async with batching(worker, on_death=reasons.append) as batcher:
        first = asyncio.create_task(ask(batcher, 0))
        await worker.held()
        waiting = await queue_up(batcher, [1, 2, 3, 4, 5, 6])
        worker.failure = death
        worker.gate.set()
        outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [InternalError] * 7
        with pytest.raises(Unavailable, match="has died"):
            await ask(batcher, 1)
        assert len(batcher.room) == 0
    assert reasons == ["the device worker has died"]


async def test_a_stop_iteration_cannot_hang_a_job() -> None:
    worker = Worker()
    worker.failure = StopIteration()
    async with batching(worker) as batcher:
        with pytest.raises(InternalError):
            await ask(batcher, 1)


async def test_closing_lets_the_running_batch_end_and_fails_the_rest() -> None:
    worker = Worker()
    worker.gate.clear()
    reasons: list[str] = []
    async with batching(worker, on_death=reasons.append) as batcher:
        first = asyncio.create_task(ask(batcher, 1))
        await worker.held()
        (second,) = await queue_up(batcher, [2])
        closing = asyncio.create_task(batcher.aclose())
        with pytest.raises(Unavailable):
            await second
        worker.gate.set()
        await closing
        assert await first == 2
        with pytest.raises(Unavailable):
            await ask(batcher, 3)
    assert reasons == []


async def test_closing_at_once_fails_those_who_wait() -> None:
    batcher = Batching(lambda jobs: lambda: list(jobs), max_size=4, max_wait_ms=0)
    batcher.room = WaitingRoom("numbers", max_places=100, max_bytes=1)
    asked = asyncio.create_task(ask(batcher, 1))
    await asyncio.sleep(0)
    batcher.start()
    await batcher.aclose()  # before the worker took its first step
    with pytest.raises(Unavailable):
        await asked


@pytest.mark.parametrize("steps", range(6))
async def test_closing_ends_whatever_comes_at_that_moment(steps: int) -> None:
    async with batching(Worker(), max_wait_ms=3_600_000) as batcher, asyncio.timeout(30):
        (first,) = await queue_up(batcher, [1])
        await asyncio.sleep(0)
        second = asyncio.create_task(ask(batcher, 2))
        for _ in range(steps):
            await asyncio.sleep(0)
        await batcher.aclose()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]


@pytest.mark.parametrize("steps", range(4))
async def test_a_job_that_goes_when_its_wait_ends_leaves_no_batch_of_nobody(steps: int) -> None:
    worker, loop = Worker(), asyncio.get_running_loop()
    async with batching(worker, max_wait_ms=20) as batcher:
        (gone,) = await queue_up(batcher, [1])
        over = time.monotonic() + 0.02

        def cancel(after: int) -> None:
            while time.monotonic() < over:  # so that the wait has ended when the event loop looks again
                pass
            loop.call_soon(cancel, after - 1) if after else gone.cancel()

        loop.call_soon(cancel, steps)
        await asyncio.gather(gone, return_exceptions=True)
        assert await ask(batcher, 2) == 4
        assert [] not in worker.batches


class Halves:
    """Begins batches, and ends them once their gates are open. Doubles numbers."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.gates: dict[int, threading.Event] = {}
        self.failures: dict[int, BaseException] = {}

    def __call__(self, jobs: Sequence[int]) -> Callable[[], list[int]]:
        self.begun.append(list(jobs))
        gate = self.gates.setdefault(len(self.begun), threading.Event())

        def end() -> list[int]:
            assert gate.wait(60)
            for job in jobs:
                if job in self.failures:
                    raise self.failures[job]
            return [2 * job for job in jobs]

        return end

    def open(self, *batches: int) -> None:
        """Of batches, counted from 1."""
        for number in batches:
            self.gates.setdefault(number, threading.Event()).set()


@asynccontextmanager
async def halving(halves: Halves, **options: object) -> AsyncIterator[Batching]:
    batcher = Batching(halves, **{"max_size": 2, "max_wait_ms": 0.0, "max_begun": 2} | options)  # type: ignore[arg-type]
    batcher.room = WaitingRoom("numbers", max_places=100, max_bytes=1)
    batcher.start()
    try:
        yield batcher
    finally:
        halves.open(*range(1, 20))
        await batcher.aclose()


async def test_so_many_batches_are_begun_before_the_first_has_ended_and_no_more() -> None:
    halves = Halves()
    async with halving(halves) as batcher:
        tasks = [asyncio.create_task(ask(batcher, job)) for job in [1, 2, 3, 4, 5]]
        await until(lambda: len(halves.begun) == 2)
        left = 5 - sum(map(len, halves.begun))
        assert len(batcher.room) == left, "those not begun keep their places"
        halves.open(1)
        await until(lambda: len(halves.begun) == 3)
        halves.open(2, 3, 4)
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]


async def test_a_fault_stays_with_the_job_that_has_it() -> None:
    halves = Halves()
    halves.open(*range(1, 10))
    halves.failures[2] = RuntimeError("out of memory")
    async with halving(halves, max_wait_ms=3_600_000) as batcher:
        outcomes = await asyncio.gather(*(ask(batcher, job) for job in (1, 2)), return_exceptions=True)
        assert halves.begun == [[1, 2], [1], [2]]
        assert outcomes[0] == 2
        assert isinstance(outcomes[1], InternalError)


async def test_what_a_failed_pass_held_is_free_when_its_jobs_run_again() -> None:
    class Tensors:
        """Something that can be watched."""

    held: list[weakref.ref[Tensors]] = []
    alive: list[bool] = []

    def begin(jobs: Sequence[int]) -> list[int]:
        alive.append(any(each() is not None for each in held))
        tensors = Tensors()
        held.append(weakref.ref(tensors))
        if len(jobs) > 1:
            raise MemoryError
        return [2 * job for job in jobs]

    async with batching(begin, max_size=2, max_wait_ms=3_600_000) as batcher:
        assert await asyncio.gather(*(ask(batcher, job) for job in (1, 2))) == [2, 4]
    assert alive == [False, False, False]


async def test_nobody_is_run_again_whose_caller_is_gone() -> None:
    halves = Halves()
    halves.failures[2] = RuntimeError("out of memory")
    async with halving(halves, max_wait_ms=3_600_000) as batcher:
        stays, gone = (asyncio.create_task(ask(batcher, job)) for job in (1, 2))
        await until(lambda: len(halves.begun) == 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        halves.open(1, 2, 3)
        assert await stays == 2
    assert halves.begun == [[1, 2], [1]]


async def test_what_kills_the_worker_at_the_end_of_a_batch_fails_everybody_once() -> None:
    halves = Halves()
    halves.failures[1] = SystemExit(3)
    async with halving(halves, max_size=1) as batcher:
        tasks = [asyncio.create_task(ask(batcher, job)) for job in [1, 2, 3]]
        await until(lambda: len(halves.begun) == 2)
        halves.open(1, 2)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[1] == 4, "begun before, and its results were there"
        assert [type(outcomes[at]) for at in (0, 2)] == [InternalError, InternalError]
        with pytest.raises(Unavailable, match="has died"):
            await ask(batcher, 4)


async def test_closing_twice_lets_begun_batches_end() -> None:
    halves = Halves()
    async with halving(halves) as batcher:
        tasks = [asyncio.create_task(ask(batcher, job)) for job in [1, 2]]
        await until(lambda: sum(map(len, halves.begun)) == 2)
        closing = [asyncio.create_task(batcher.aclose()) for _ in range(2)]
        await until(lambda: batcher._task is not None and batcher._task.cancelling() >= 2)
        halves.open(1, 2)
        await asyncio.gather(*closing)
        assert await asyncio.gather(*tasks) == [2, 4]
