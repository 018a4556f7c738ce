"""The waiting room: bounded in number and in bytes, and it knows about how long one waits."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from encoder_service.waiting_room import WaitingRoom
from vscan.errors import ResourceExhausted


class Clock:
    """Goes on when it is told."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def room(
    places: int = 100,
    max_bytes: int = 10**9,
    *,
    on_change: Callable[[int], None] = lambda change: None,
    clock: Clock | None = None,
) -> WaitingRoom:
    return WaitingRoom("videos", max_places=places, max_bytes=max_bytes, on_change=on_change, clock=clock or Clock())


def refusal(waiting: WaitingRoom, file_bytes: int = 1) -> ResourceExhausted:
    with pytest.raises(ResourceExhausted) as caught, waiting.enter(file_bytes):
        pass
    return caught.value


def test_a_place_is_kept_until_the_batch_starts_or_its_caller_leaves() -> None:
    changes: list[int] = []
    waiting = room(2, on_change=changes.append)
    with waiting.enter(1) as first:
        with waiting.enter(1):
            assert str(refusal(waiting)) == "2 videos wait to be encoded already"
        assert len(waiting) == 1
        first.started()
        first.leave()
        assert len(waiting) == 0
    assert changes == [1, 1, -1, -1]


def test_bytes_are_bounded_and_a_single_one_may_have_more() -> None:
    waiting = room(max_bytes=100)
    with waiting.enter(1000), pytest.raises(ResourceExhausted, match=r"^videos of 1,000 bytes wait to be encoded already$"):
        waiting.enter(0).__enter__()
    with waiting.enter(60), waiting.enter(40) as second:
        assert waiting.held_bytes == 100
        refusal(waiting, 1)
        second.leave()
        with waiting.enter(30) as third:
            third.prepared(20)
            assert waiting.held_bytes == 110
            refusal(waiting, 0)
    with waiting.enter(100):
        pass
    assert waiting.held_bytes == 0


async def test_while_prepared_ones_fill_the_room_nothing_more_is_prepared() -> None:
    waiting = room(max_bytes=100)
    with waiting.enter(10) as first, waiting.enter(10) as second, waiting.enter(10):
        await waiting.may_decode()
        first.prepared(50)
        await waiting.may_decode()
        second.prepared(50)
        held_back = [asyncio.create_task(waiting.may_decode()) for _ in range(2)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert not any(task.done() for task in held_back)
        second.leave()
        async with asyncio.timeout(60):
            await asyncio.gather(*held_back)
    with waiting.enter(1000):
        await waiting.may_decode()  # nobody would ever make room for it


def test_the_delay_is_what_others_have_waited() -> None:
    clock = Clock()
    waiting = room(2, clock=clock)
    with ExitStack() as stack:
        stack.enter_context(waiting.enter(1))
        stack.enter_context(waiting.enter(1))
        assert refusal(waiting).retry_delay_ms == 50
        clock.seconds += 2.5
        assert refusal(waiting).retry_delay_ms == 2500, "nobody's wait has ended yet: the eldest's up to now"
    for seconds in (8, 4):
        with waiting.enter(1) as place:
            clock.seconds += seconds
            place.started()
    with waiting.enter(1):
        clock.seconds += 1000  # one who leaves tells nothing
    with waiting.enter(1), waiting.enter(1):
        assert refusal(waiting).retry_delay_ms == 6000
        clock.seconds += 7
        assert refusal(waiting).retry_delay_ms == 7000
    for _ in range(16):
        with waiting.enter(1) as place:
            place.started()
    with waiting.enter(1), waiting.enter(1):
        assert refusal(waiting).retry_delay_ms == 50, "only those of late count"
