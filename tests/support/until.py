"""Waits for conditions, so that no test waits for time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

GIVE_UP_SECONDS = 150.0


async def until(condition: Callable[[], bool | Awaitable[bool]], *, what: str = "the condition") -> None:
    """Returns once `condition` is true; asks every few milliseconds and fails after two and a half minutes."""
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not await _holds(condition):  # noqa: ASYNC110  # a condition of another process sets no event here
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {GIVE_UP_SECONDS:.0f} s") from None


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = condition()
    return answer if isinstance(answer, bool) else await answer
