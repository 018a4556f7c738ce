"""A DNS server of the tests' own: names with IPv4 addresses that change while clients ask."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("!HHHHHH")
_QUESTION_END = struct.Struct("!HH")
_TYPE_A = 1
_ANSWER = 0x8400  # a response, from who knows
_NO_SUCH_NAME = 3


class NameServer:
    """Answers on UDP at `address` (`host:port`) what `hosts` then says; other names there are none."""

    def __init__(self, hosts: dict[str, list[str]]) -> None:
        self.hosts = hosts
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """Where it is asked."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", self._socket.getsockname())  # the end
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], _HEADER.size
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = query[_HEADER.size : at + 1 + _QUESTION_END.size]
        (kind, _) = _QUESTION_END.unpack(question[-_QUESTION_END.size :])
        known = self.hosts.get(".".join(labels).lower())
        found = known if known and kind == _TYPE_A else []
        flags = _ANSWER | (0 if known else _NO_SUCH_NAME)
        # Each answer: the question's name (a pointer to it), type A, class IN, no time to live, four bytes.
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", _TYPE_A, 1, 0, 4) + socket.inet_aton(host) for host in found)
        return _HEADER.pack(int.from_bytes(query[:2]), flags, 1, len(found), 0, 0) + question + records
