"""The socket that listens, and how many connections it has."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from vscan.errors import StartupError
from vscan.rpc.address import Address
from vscan.rpc.listening import check_free


class _Connection(socket.socket):
    """A connection that tells of its end."""

    ended: Callable[[], None]

    def close(self) -> None:
        """Tells once."""
        if self.fileno() >= 0:
            self.ended()
        super().close()


class BoundedListener(socket.socket):
    """Accepts only so many connections at once, those that are still at their handshake among them; one too many is closed."""

    max_connections = 1
    open_connections = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises BlockingIOError where there is none to be had."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        connection = _Connection(self.family, self.type, self.proto, fileno=descriptor)
        self.open_connections += 1
        connection.ended = self._one_less
        if self.open_connections > self.max_connections:
            connection.close()
            raise BlockingIOError
        return connection, address

    def _one_less(self) -> None:
        self.open_connections -= 1


def listen(address: Address, max_connections: int) -> BoundedListener:
    """A bound socket. Raises StartupError naming the address and the reason."""
    check_free(address)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, target = found[0]
    listener = BoundedListener(family, socket.SOCK_STREAM)
    listener.max_connections = max_connections
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.set_inheritable(False)
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {address}: {error.strerror}") from error
    return listener
