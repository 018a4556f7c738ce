"""Short work stays on the event loop, long work leaves it."""

from __future__ import annotations

import threading

import pytest

from vscan.offload import OFF_LOOP_BYTES, off_loop_if_large


@pytest.mark.parametrize(("size_bytes", "leaves"), [(0, False), (OFF_LOOP_BYTES, False), (OFF_LOOP_BYTES + 1, True)])
async def test_work_leaves_the_loop_by_its_size(size_bytes: int, leaves: bool) -> None:
    thread = await off_loop_if_large(size_bytes, threading.current_thread)
    assert (thread is not threading.current_thread()) == leaves


@pytest.mark.parametrize("size_bytes", [0, OFF_LOOP_BYTES + 1])
async def test_errors_come_back(size_bytes: int) -> None:
    def fail() -> None:
        raise ValueError("bad bytes")

    with pytest.raises(ValueError, match="bad bytes"):
        await off_loop_if_large(size_bytes, fail)
