"""One connection: uvicorn's HTTP/1.1 with bounds on whatever a caller may make it wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_HEAD_BYTES = 64 * 1024


def head_bytes(scope: Scope) -> int:
    """Of a request's head. h11 bounds one that is not there whole; one that comes all at once may be larger."""
    fields = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
    return fields + len(scope["raw_path"]) + len(scope["query_string"])


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that waits only so long: for the head of a request, for a body that nobody reads any more, and for a caller to
    take what was sent last.
    """

    def __init__(self, *arguments: Any, header_timeout_s: float, patience_s: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._header_timeout_s, self._patience_s = header_timeout_s, patience_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time of the first head counts from here."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """The time of a head counts from its first byte; of a connection's first one from the connection."""
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            self._read_on()
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self.conn.trailing_data[0]:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        for timer in (self._end_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller does not take what it asked for."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP ends the connection; where an answer was begun already, without another one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what is about to be answered is no longer
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
            self._end_within(self._header_timeout_s)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """What still comes of a body that was refused is passed over, but not for ever; nor does a closed connection wait."""
        cycle, is_body_left = self.cycle, self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if self.cycle is cycle and (is_body_left or self.transport.is_closing()):
            self._end_within(self._header_timeout_s if is_body_left else self._patience_s)

    def timeout_keep_alive_handler(self) -> None:
        """It is closed, even if what was sent last is not taken."""
        super().timeout_keep_alive_handler()
        self._end_within(self._patience_s)

    def _should_upgrade(self) -> bool:
        """Never; and nothing is logged of it, since any caller may ask."""
        return False

    def _read_on(self) -> None:
        """Of what follows before the answer only so much is kept. Reading goes on: nothing else shows that a caller left."""
        if len(self.conn.trailing_data[0]) > MAX_HEAD_BYTES:
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _end_within(self, seconds: float) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self.loop.call_later(seconds, self._end_unless_it_went_on, self.cycle)

    def _end_unless_it_went_on(self, cycle: object) -> None:
        if self.transport.is_closing() or (self.cycle is cycle and self.conn.their_state is h11.SEND_BODY):
            self.transport.abort()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._header_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
