"""Work for a caller that ends early: the caller leaves, or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


async def unless(work: Coroutine[Any, Any, T], *ends: tuple[Coroutine[Any, Any, object], Exception]) -> T:
    """What `work` comes to, at once when it is done: who was answered may ask again before another turn of the event loop.

    Args:
        work: what is wanted.
        ends: if one of them returns before, `work` is cancelled, and once it has ended the error beside it is raised.
    """
    task = asyncio.ensure_future(work)
    endings = {asyncio.ensure_future(end): error for end, error in ends}
    try:
        await asyncio.wait((task, *endings), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise next(error for ending, error in endings.items() if ending.done())
    finally:
        for each in (task, *endings):
            each.cancel()
        if not task.done():
            await asyncio.gather(task, return_exceptions=True)


async def leaving(receive: Receive) -> None:
    """Returns once the caller has closed its connection; only after its whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
