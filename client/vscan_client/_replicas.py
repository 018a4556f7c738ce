"""The endpoints of one service with their channels. What is asked of which is in `_balancer.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from vscan.errors import Cancelled, Unavailable
from vscan.rpc.renewed_channel import RenewedChannel
from vscan_client import _resolving
from vscan_client._affinity import affinity_key
from vscan_client._balancer import Balancer, Route
from vscan_client._resolving import Endpoint, Servers
from vscan_client.content import Visual
from vscan_client.options import Affinity

# Of an endpoint that failed the name is looked up again, but a service that is down is no reason to ask without a pause.
_LEAST_REFRESH_S = 1.0


@dataclass(slots=True)
class _Connection:
    channel: RenewedChannel
    calls: int = 0


class Replicas:
    """What a client knows of the replicas of one service. Belongs to one event loop; may be made before it runs.

    Names are looked up before the first call, and again behind the calls' back: from time to time, and when an endpoint cannot
    be reached. Where that fails the old addresses stay.

    Args:
        servers: what the client was given.
        affinity: how calls are spread.
        connect: opens a channel.
        check: raises for a target that must not be connected to; before anything is looked up.
        look_up_s: the longest that a call waits for names.
    """

    def __init__(
        self,
        servers: Servers,
        affinity: Affinity,
        *,
        connect: Callable[[Endpoint], RenewedChannel],
        check: Callable[[str], None],
        look_up_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._connect, self._check = connect, check
        self._look_up_s, self._refresh_s = look_up_s, affinity.refresh_s
        self._clock = clock
        self._behind: dict[str, list[Endpoint]] = {}  # by name, as it was found last
        self._endpoints = {endpoint.target: endpoint for endpoint in servers.fixed}
        self._balancer = Balancer(self._endpoints, affinity)
        self._connections: dict[str, _Connection] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked_at: float | None = None
        self._closing: set[asyncio.Task[None]] = set()  # kept here, or the loop would forget them
        self._pauses: set[asyncio.Future[None]] = set()  # of those that wait to ask again
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def route(self, visuals: Sequence[Visual] = ()) -> Route:
        """The way of one call about these images and videos; of one about none wherever there is least to do."""
        return Route(self._balancer, affinity_key(visuals))

    async def ready(self, left_s: float | None) -> None:
        """Returns once an endpoint is known. Raises Unavailable where none was found within the time."""
        for target in self._servers.targets:
            self._check(target)
        if not self._servers.names or self._closed:
            return
        looking = self._look_again(self._refresh_s)
        if self._endpoints or looking is None:
            return
        wait_s = self._look_up_s if left_s is None else min(self._look_up_s, max(left_s, 0.0))
        try:
            # Not wait_for: Python 3.11's forgets that it was cancelled where what it waits for comes at the same moment.
            async with asyncio.timeout(wait_s):
                await asyncio.shield(looking)
        except asyncio.CancelledError:
            raise_if_closed(self._closed)
            raise
        except TimeoutError:
            names = ", ".join(name.host for name in self._servers.names)
            raise Unavailable(f"{names}: no address was found within {wait_s:g} s") from None

    @contextmanager
    def endpoint(self, route: Route) -> Iterator[grpc.aio.Channel]:
        """Around one try: the channel to the endpoint that it goes to. Raises Cancelled when the client is closed."""
        if self._closed:
            raise Cancelled("the client is closed")
        with route.endpoint() as target:
            connection = self._connection(target)
            connection.calls += 1
            try:
                with connection.channel.use() as channel:
                    yield channel
            except Unavailable:
                self._look_again(_LEAST_REFRESH_S)
                raise
            finally:
                connection.calls -= 1
                self._let_go()

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """To be awaited before a call is sent again. Cancelled when the client is closed."""
        pause = asyncio.ensure_future(asyncio.sleep(seconds))
        self._pauses.add(pause)
        pause.add_done_callback(self._pauses.discard)
        return pause

    async def aclose(self) -> None:
        """Ends what is under way and the connections."""
        self._closed = True
        for pause in self._pauses:
            pause.cancel()
        if self._looking is not None:
            self._looking.cancel()
        for connection in self._connections.values():
            await connection.channel.aclose()
        self._connections.clear()
        await asyncio.gather(*self._closing)

    def _connection(self, target: str) -> _Connection:
        """Opened at its first use, since it belongs to the event loop that runs then."""
        if target not in self._connections:
            self._connections[target] = _Connection(self._connect(self._endpoints[target]))
        return self._connections[target]

    def _let_go(self) -> None:
        """Closes the channels that nobody will use any more."""
        for target, connection in list(self._connections.items()):
            if target not in self._endpoints and connection.calls == 0:
                del self._connections[target]
                closing = asyncio.ensure_future(connection.channel.aclose())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def _look_again(self, after_s: float) -> asyncio.Task[None] | None:
        """The look-up that is under way; begins one if the last one is so long ago."""
        if self._looking is not None and not self._looking.done():
            return self._looking
        fresh = self._looked_at is not None and self._clock() - self._looked_at < after_s
        if not self._servers.names or self._closed or (fresh and self._endpoints):
            return None
        self._looking = asyncio.ensure_future(self._look_up())
        self._looking.add_done_callback(_note_error)
        return self._looking

    async def _look_up(self) -> None:
        failures: list[Unavailable] = []
        for name in self._servers.names:
            try:
                self._behind[str(name)] = _resolving.endpoints_at(name, await _resolving.look_up(name))
            except Unavailable as error:
                failures.append(error)
        self._looked_at = self._clock()
        found = [*self._servers.fixed, *(endpoint for behind in self._behind.values() for endpoint in behind)]
        if not found:
            raise failures[0]
        self._endpoints = {endpoint.target: endpoint for endpoint in found}
        self._balancer.update(self._endpoints)
        self._let_go()


def _note_error(looking: asyncio.Task[None]) -> None:
    """Whoever waits for addresses gets the error; where nobody does it is no news."""
    if not looking.cancelled():
        looking.exception()


def raise_if_closed(closed: bool) -> None:
    """A closed client raises CancelledError in those that wait, whose tasks were not cancelled: that is the call's error."""
    task = asyncio.current_task()
    if closed and (task is None or not task.cancelling()):
        raise Cancelled("the client or the stream was closed")
