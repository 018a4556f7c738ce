"""Work on bytes, on the event loop while it is short, in a thread when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Hashing, sealing and parsing of this much take about a millisecond; more would delay other requests' tokens.
OFF_LOOP_BYTES = 2**20
COPIES = 4  # so many bytes are copied in the time in which one is hashed or parsed


async def off_loop_if_large(size_bytes: int, work: Callable[[], T]) -> T:
    """Runs `work`, in a thread if it is about more than OFF_LOOP_BYTES. A cancelled caller leaves it running to its end."""
    return await asyncio.to_thread(work) if size_bytes > OFF_LOOP_BYTES else work()
