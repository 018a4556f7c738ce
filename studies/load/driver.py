"""Sends requests when they are due and notes what comes back. Every request ends in exactly one record."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from studies.load.record import Record
from studies.load.targets.base import Seen, Target
from studies.load.workload import Ask
from vscan.errors import VScanError


async def drive(target: Target, asks: Sequence[Ask], *, clients: int | None = None) -> list[Record]:
    """Runs a load to its end.

    Args:
        clients: a closed loop of so many, each of which sends its next request when its last one has ended. `None`: an open
            loop, where each request is sent when it is due, however the others fare.

    Raises:
        ExceptionGroup: what is no `VScanError`, which only a mistake of the generator's own can be.
    """
    with _no_collections():
        clock = Clock()
        return await (_open(target, asks, clock) if clients is None else _closed(target, asks, clients, clock))


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._began


async def _open(target: Target, asks: Sequence[Ask], clock: Clock) -> list[Record]:
    tasks = []
    async with asyncio.TaskGroup() as group:
        for ask in asks:
            await asyncio.sleep(max(0.0, (ask.due_s or 0.0) - clock()))
            tasks.append(group.create_task(_one(target, ask, clock)))
    return [task.result() for task in tasks]


async def _closed(target: Target, asks: Sequence[Ask], clients: int, clock: Clock) -> list[Record]:
    records: list[Record] = []
    left = iter(asks)

    async def client() -> None:
        for ask in left:
            records.append(await _one(target, ask, clock))  # noqa: PERF401  (the iterator is shared by all clients)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return sorted(records, key=lambda record: record.ask.number)


async def _one(target: Target, ask: Ask, clock: Clock) -> Record:
    record = Record(ask, sent_s=clock())
    try:
        await target.ask(ask, Seen(record, clock))
    except VScanError as error:
        record.code, record.message = error.status.name, f"{type(error).__name__}: {error}"
    record.end_s = clock()
    return record


@contextmanager
def _no_collections() -> Iterator[None]:
    """What is in memory already is not looked through by the garbage collector while tokens are waited for."""
    gc.collect()
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
