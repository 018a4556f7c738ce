"""One piece of work for all who wait; it ends when it is done or when nobody wants it any more."""

from __future__ import annotations

import asyncio
import gc

import pytest

from encoder_service.cache.single_flight import SingleFlight
from vscan.errors import ResourceExhausted, Unavailable


class Work:
    """Work that waits to be let go, and counts what happens to it."""

    def __init__(self, result: str = "tokens") -> None:
        self.result = result
        self.runs = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.runs += 1
        self.started.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return self.result

    async def at_once(self) -> str:
        """Without waiting."""
        return self.result


async def waiting(
    flights: SingleFlight[str], work: Work, count: int, key: bytes = b"k"
) -> list[asyncio.Task[tuple[str, bool]]]:
    """`count` callers of one key, the first of them the leader, all of them waiting."""
    tasks = [asyncio.create_task(flights.run(key, work)) for _ in range(count)]
    await work.started.wait()
    return tasks


async def cancel(task: asyncio.Task[tuple[str, bool]]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_callers_one_run() -> None:
    flights, work = SingleFlight[str](), Work()
    tasks = await waiting(flights, work, 20)
    work.gate.set()
    results = await asyncio.gather(*tasks)
    assert (work.runs, len(flights)) == (1, 0)
    assert results == [("tokens", False)] + [("tokens", True)] * 19


async def test_keys_do_not_share() -> None:
    flights, one, other = SingleFlight[str](), Work("one"), Work("other")
    tasks = [*await waiting(flights, one, 2, b"1"), *await waiting(flights, other, 1, b"2")]
    one.gate.set()
    other.gate.set()
    assert [result for result, _ in await asyncio.gather(*tasks)] == ["one", "one", "other"]


async def test_after_it_ended_the_next_runs_again() -> None:
    flights, work = SingleFlight[str](), Work()
    work.gate.set()
    assert [await flights.run(b"k", work) for _ in range(2)] == [("tokens", False)] * 2
    assert work.runs == 2


async def test_followers_survive_a_cancelled_leader() -> None:
    flights, work = SingleFlight[str](), Work()
    leader, *followers = await waiting(flights, work, 3)
    await cancel(leader)
    assert not work.cancelled.is_set()
    work.gate.set()
    assert await asyncio.gather(*followers) == [("tokens", True)] * 2
    assert work.runs == 1


async def test_a_cancelled_follower_disturbs_nobody() -> None:
    flights, work = SingleFlight[str](), Work()
    leader, follower = await waiting(flights, work, 2)
    await cancel(follower)
    work.gate.set()
    assert await leader == ("tokens", False)


async def test_when_all_are_gone_the_work_is_cancelled() -> None:
    flights, work = SingleFlight[str](), Work()
    for task in await waiting(flights, work, 3):
        await cancel(task)
    await work.cancelled.wait()
    assert len(flights) == 0


async def test_who_comes_after_that_starts_anew() -> None:
    flights, work = SingleFlight[str](), Work()
    (only,) = await waiting(flights, work, 1)
    await cancel(only)
    work.gate.set()
    assert await flights.run(b"k", work) == ("tokens", False)
    assert work.runs == 2


async def test_an_error_reaches_every_waiter() -> None:
    flights, work = SingleFlight[str](), Work()
    tasks = await waiting(flights, work, 5)
    work.error = ResourceExhausted("busy", retry_delay_ms=5)
    work.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(error), str(error)) for error in results] == [(ResourceExhausted, "busy")] * 5
    assert len({id(error) for error in results}) == 5  # what one caller's trace id is written into is not another's
    assert len(flights) == 0


async def test_after_an_error_the_next_tries_again() -> None:
    flights, work = SingleFlight[str](), Work()
    work.error = ResourceExhausted("busy", retry_delay_ms=5)
    work.gate.set()
    with pytest.raises(ResourceExhausted):
        await flights.run(b"k", work)
    work.error = None
    assert await flights.run(b"k", work) == ("tokens", False)


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost() -> None:
    flights, work = SingleFlight[str](), Work()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    ended = asyncio.Event()

    async def fail_when_cancelled() -> str:
        try:
            return await work()
        except asyncio.CancelledError:
            raise ValueError("on the way out") from None
        finally:
            ended.set()

    task = asyncio.create_task(flights.run(b"k", fail_when_cancelled))
    await work.started.wait()
    await cancel(task)
    await ended.wait()
    del task
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    assert reported == []


async def test_work_that_is_stopped_from_outside_is_unavailable_not_cancelled() -> None:
    flights, work = SingleFlight[str](), Work()
    tasks = await waiting(flights, work, 3)
    await flights.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert work.cancelled.is_set()


async def test_a_deadline_of_one_waiter_is_its_own() -> None:
    flights, work = SingleFlight[str](), Work()
    leader = asyncio.create_task(asyncio.wait_for(flights.run(b"k", work), timeout=0.01))
    await work.started.wait()
    follower = asyncio.create_task(flights.run(b"k", work))
    with pytest.raises(TimeoutError):
        await leader
    work.gate.set()
    assert await follower == ("tokens", True)


async def test_nobody_joins_work_that_has_just_failed() -> None:
    """Also not before its end is told: one that asked again at once would never let it be."""
    flights, work = SingleFlight[str](), Work()
    work.error = LookupError()
    (first,) = await waiting(flights, work, 1)

    async def come_just_then() -> tuple[str, bool]:
        await work.gate.wait()  # behind the work itself
        assert len(flights) == 1
        return await flights.run(b"k", Work("anew").at_once)

    second = asyncio.create_task(come_just_then())
    await asyncio.sleep(0)
    work.gate.set()
    with pytest.raises(LookupError):
        await first
    assert await second == ("anew", False)
    assert len(flights) == 0


async def test_closing_waits_for_work_that_was_given_up() -> None:
    """It may have something to give back, over a connection that is closed next."""
    flights, work, given_back = SingleFlight[str](), Work(), asyncio.Event()

    async def give_back() -> str:
        try:
            return await work()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            given_back.set()

    task = asyncio.create_task(flights.run(b"k", give_back))
    await work.started.wait()
    await cancel(task)
    assert not given_back.is_set()
    await flights.aclose()
    assert given_back.is_set()
