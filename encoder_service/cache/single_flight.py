"""One piece of work for all who want the same thing at the same time.

The key carries the tenant, so tenants never share. Across replicas a lease goes around `make`: one flight, one lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vscan.errors import Unavailable, VScanError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class SingleFlight(Generic[T]):
    """Runs one `make` a key, however many wait for it. For one event loop.

    The work belongs to all its waiters: it goes on when the one that started it is cancelled, and ends when none is left.
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()  # also of flights that were given up and have not ended yet

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: bytes, make: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result of `make`, and whether another caller's was shared.

        `make` must not carry its caller's deadline: it may outlive that caller.

        Raises:
            Unavailable: the work was stopped from outside, for instance at shutdown.
            Exception: whatever `make` raised, to every waiter; a VScanError as a copy of its own.
        """
        under_way = self._flights.get(key)
        # One that has ended, and whose end the event loop is still to tell of, is nothing to wait for: it may have failed.
        shared = under_way is not None and not under_way.task.done()
        flight = under_way if under_way is not None and shared else self._start(key, make)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task), shared
        except asyncio.CancelledError:
            if _is_own_cancellation():
                raise
            raise Unavailable("the service stopped this work") from None
        except VScanError as error:
            raise error.copy() from error
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                self._abandon(key, flight)

    async def aclose(self) -> None:
        """Cancels all work and waits until it has ended; its waiters get Unavailable.

        What was given up before is waited for too: it may be giving a lease back.
        """
        for flight in self._flights.values():
            flight.task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, key: bytes, make: Callable[[], Awaitable[T]]) -> _Flight[T]:
        flight = _Flight(asyncio.create_task(_awaited(make)))
        self._flights[key] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._landed(key, flight))
        return flight

    def _landed(self, key: bytes, flight: _Flight[T]) -> None:
        self._forget(key, flight)
        self._tasks.discard(flight.task)
        if not flight.task.cancelled():
            flight.task.exception()  # seen: every waiter has it, or none was left to want it

    def _abandon(self, key: bytes, flight: _Flight[T]) -> None:
        # Whoever comes now starts anew, rather than join work that is being cancelled.
        self._forget(key, flight)
        flight.task.cancel()

    def _forget(self, key: bytes, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def _is_own_cancellation() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
