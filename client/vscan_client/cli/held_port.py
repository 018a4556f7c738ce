"""A free port that stays free until its server is there."""

from __future__ import annotations

import socket
from typing import Self


class HeldPort:
    """Bound, but not listening. A server that sets SO_REUSEADDR, as gRPC and Redis do, can still bind and listen on it, and the
    kernel gives it to nobody else meanwhile.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(address)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
