"""A channel whose certificates are renewed while it is in use: gRPC reads those of a channel once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from vscan.rpc.channel import ClientTls
from vscan.rpc.tls_files import Rotating


@dataclass(slots=True, eq=False)
class _Opened:
    channel: grpc.aio.Channel
    credentials: grpc.ChannelCredentials | None
    calls: int = 0


class RenewedChannel:
    """Opens another channel once the TLS files have changed, and closes the one before when its calls have ended.

    Belongs to one event loop.

    Args:
        connect: opens a channel with these credentials; with None, without.
        tls: the files; None: there are none, and one channel serves for good.

    Raises what `connect` and `ClientTls.credentials` raise.
    """

    def __init__(
        self, connect: Callable[[grpc.ChannelCredentials | None], grpc.aio.Channel], tls: ClientTls | None = None
    ) -> None:
        self._connect = connect
        self._files = None if tls is None else Rotating("the client's certificate or CA", tls.paths, tls.credentials)
        self._newest = self._open()
        self._left: list[_Opened] = []  # for calls that still run
        self._closing: set[asyncio.Task[None]] = set()  # kept here, or the loop would forget them

    @contextmanager
    def use(self) -> Iterator[grpc.aio.Channel]:
        """Around one call: the channel for it."""
        opened = self._renewed()
        opened.calls += 1
        try:
            yield opened.channel
        finally:
            opened.calls -= 1
            self._let_go()

    async def aclose(self) -> None:
        """Ends what is under way and the connections."""
        for opened in (self._newest, *self._left):
            await opened.channel.close(None)
        self._left.clear()
        await asyncio.gather(*self._closing)

    def _open(self) -> _Opened:
        credentials = None if self._files is None else self._files.current()
        return _Opened(self._connect(credentials), credentials)

    def _renewed(self) -> _Opened:
        if self._files is not None and self._files.current() is not self._newest.credentials:
            before, self._newest = self._newest, self._open()
            self._left.append(before)
            self._let_go()  # now, if it is idle: the call that begins may last for hours
        return self._newest

    def _let_go(self) -> None:
        for opened in [opened for opened in self._left if opened.calls == 0]:
            self._left.remove(opened)
            closing = asyncio.ensure_future(opened.channel.close(None))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
