"""Work for a caller that ends early: the caller leaves, or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


async def unless(work: Coroutine[Any, Any, T], end: Coroutine[Any, Any, object], error: Exception) -> T:
    """What `work` comes to; if `end` returns before, `work` is cancelled, and once it has ended `error` is raised."""
    task, ending = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise error
        return task.result()
    finally:
        for each in (task, ending):
            each.cancel()
        await asyncio.gather(task, ending, return_exceptions=True)


async def leaving(receive: Receive) -> None:
    """Returns once the caller has closed its connection; only after its whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
