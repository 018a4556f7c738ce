"""A caller that does not take its answer, and one that leaves while it is made."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from gateway_service.conversation import CallerLeftError, Conversations, PatientSend
from vscan.errors import Unavailable


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_piece_that_is_not_taken_closes_the_connection() -> None:
    aborted = []

    async def stuck(message: Message) -> None:
        await never()

    send = PatientSend({"type": "http", "state": {"abort": lambda: aborted.append(True)}}, stuck, 0.01)
    with pytest.raises(CallerLeftError):
        await send({"type": "http.response.body", "body": b"more"})
    assert aborted == [True]
    assert not send.started


async def test_work_is_cancelled_when_its_caller_leaves() -> None:
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    async def leaves() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(CallerLeftError):
        await Conversations().unless_the_caller_leaves(leaves, work())
    assert ended == [True]


async def test_all_work_is_cancelled_at_the_end() -> None:
    conversations = Conversations()
    working = [asyncio.create_task(conversations.unless_the_caller_leaves(never, never())) for _ in range(2)]
    await asyncio.sleep(0)
    conversations.end()
    for each in working:
        with pytest.raises(Unavailable, match="stopping"):
            await each
