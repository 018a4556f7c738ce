"""The engine's own thread: an inbox of messages for it, and the way back of events to those that wait.

    event loop(s)                                        engine's thread
    submit ──▶ inbox: submit, cancel ──▶ between steps ──▶ engine.add / engine.cancel
    Submission ◀── call_soon_threadsafe ◀── mailboxes ◀──── engine.step

Every accepted request gets exactly one final event: a mailbox leaves the table with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType

from decoder_service.engine import Engine, EngineFigures, Outcome, StepFigures
from decoder_service.request import Delta, EngineRequest, Event, Failure, Result
from vscan.errors import InternalError, InvalidArgument, ResourceExhausted, Unavailable, VScanError
from vscan.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

# Looking at the numbers of so many visual tokens takes a fifth of a millisecond; more would delay other requests' tokens.
_OFF_LOOP_ROWS = 512
_RETRY_DELAY_MS = 1000


@dataclass(frozen=True, slots=True)
class _Submit:
    request: EngineRequest
    accepted_s: float


@dataclass(frozen=True, slots=True)
class _Cancel:
    request_id: str


class _Mailbox:
    """Where one request's events arrive, on the event loop that submitted it."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[Event, float]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        # Each written by one thread alone.
        self._delivered = 0
        self._taken = 0

    @property
    def unread(self) -> int:
        """Events that nobody has taken yet. From any thread."""
        return self._delivered - self._taken

    def deliver(self, event: Event) -> None:
        """From any thread. A loop that has closed has nobody left who waits."""
        self._delivered += 1
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived, event)

    async def take(self) -> tuple[Event, float]:
        """The next event, once there is one, and when it came, by `time.perf_counter`."""
        event = await self._events.get()
        self._taken += 1
        return event

    def _arrived(self, event: Event) -> None:
        self._events.put_nowait((event, time.perf_counter()))


class Submission(AsyncIterator[Delta | Result]):
    """An accepted request's events: any number of `Delta`, then one `Result`; or it raises the error that ended the request.

    Closing it before its end cancels the request, and so does cancelling the task that waits for the next event, leaving
    `async with`, or dropping the last reference.

    Attributes:
        came_s: when the last event that was taken came, by `time.perf_counter`: it may have waited for a caller that is slow.
    """

    def __init__(self, request_id: str, mailbox: _Mailbox, cancel: Callable[[str], None]) -> None:
        self.request_id = request_id
        self.came_s = 0.0
        self._mailbox = mailbox
        self._cancel = cancel
        self._ended = False

    async def __anext__(self) -> Delta | Result:
        if self._ended:
            raise StopAsyncIteration
        try:
            event, self.came_s = await self._mailbox.take()
        except asyncio.CancelledError:
            self.close()
            raise
        self._ended = not isinstance(event, Delta)
        if isinstance(event, Failure):
            raise event.error
        return event

    def close(self) -> None:
        """Cancels the request if it has not ended."""
        if not self._ended:
            self._ended = True
            self._cancel(self.request_id)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    async def __aenter__(self) -> Submission:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class EngineLoop:
    """Runs an engine on a thread of its own.

    Args:
        engine: nobody else may use it once `start` was called.
        on_death: called on the engine's thread if that thread dies; the service should say that it is not ready.
        max_unread_events: of one request, for which nobody has asked yet. With more it ends: its caller does not read.
    """

    def __init__(self, engine: Engine, *, on_death: Callable[[], None] | None = None, max_unread_events: int = 1024) -> None:
        self._engine = engine
        self._max_unread_events = max_unread_events
        self._on_death = on_death
        self._wake = threading.Condition()  # guards the four below
        self._inbox: deque[_Submit | _Cancel] = deque()
        self._mailboxes: dict[str, _Mailbox] = {}
        self._stopping = False
        self._dead = False
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

        self.heart = Heartbeat("the engine", threads=self._thread.name)  # beats from step to step

    @property
    def alive(self) -> bool:
        """Whether requests are being served."""
        return self._thread.is_alive() and not self._dead

    @property
    def figures(self) -> EngineFigures:
        """For metrics; from any thread."""
        with self._wake:  # under which requests go from the inbox to the engine: each is counted once
            figures = self._engine.figures
            if self._dead:
                return replace(figures, waiting=0, running=0)
            return replace(figures, waiting=figures.waiting + len(self._on_the_way()))

    def take_steps(self, *most: int) -> list[StepFigures]:
        """For metrics; from any thread. See `Engine.take_steps`."""
        return self._engine.take_steps(*most)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float | None = None) -> bool:
        """Ends what is unfinished with Unavailable after the step under way, and waits for the thread. May be called twice.

        Returns whether the thread has ended: one that is wedged outlives any time.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    async def submit(self, request: EngineRequest) -> Submission:
        """Accepts a request.

        Raises:
            InvalidArgument: it can never be served.
            ResourceExhausted: too many wait; says when to come back.
            Unavailable: the engine is stopping, or has not been started.
            InternalError: the engine's thread has died.
        """
        if request.prompt.visual_rows > _OFF_LOOP_ROWS:
            await asyncio.to_thread(self._engine.check, request)
        else:
            self._engine.check(request)
        mailbox = _Mailbox()
        with self._wake:
            self._check_open(request.request_id)
            self._engine.check_room(request.tenant, [coming.tenant for coming in self._on_the_way()])
            self._mailboxes[request.request_id] = mailbox
            self._inbox.append(_Submit(request, time.perf_counter()))
            self._wake.notify()
        return Submission(request.request_id, mailbox, self.cancel)

    def cancel(self, request_id: str) -> None:
        """Asks that a request end before the next step; one that has ended is left alone. From any thread."""
        with self._wake:
            if request_id in self._mailboxes:
                self._inbox.append(_Cancel(request_id))
                self._wake.notify()

    def _check_open(self, request_id: str) -> None:
        if self._dead:
            raise InternalError("the engine has failed")
        if self._stopping or not self._thread.is_alive():
            raise Unavailable("the engine is stopping")
        if request_id in self._mailboxes:
            raise InvalidArgument("request_id", "in use")

    def _on_the_way(self) -> list[EngineRequest]:
        """Accepted and not yet with the engine."""
        # A copy: a submission that is dropped just now cancels itself, in the middle of whatever this thread does.
        return [message.request for message in list(self._inbox) if isinstance(message, _Submit)]

    def _main(self) -> None:
        try:
            self._engine.prepare()
            while self._take_messages():
                self._deliver(self._engine.step())
                self.heart.rest()
            self._close(Unavailable("the service is stopping"))
        except BaseException:
            logger.exception("the engine's thread has died")
            self._die()

    def _take_messages(self) -> bool:
        """Waits while there is nothing to do, then hands the inbox to the engine. False once the loop is to stop."""
        with self._wake:
            while not self._inbox and self._engine.idle and not self._stopping:
                self._wake.wait()
            if self._stopping:
                return False
            self.heart.begin()
            ended: list[Outcome] = []
            while self._inbox:
                ended += self._hand_over(self._inbox.popleft())
        self._deliver(ended)
        return True

    def _hand_over(self, message: _Submit | _Cancel) -> list[Outcome]:
        if isinstance(message, _Cancel):
            return self._engine.cancel(message.request_id)
        return self._engine.add(message.request, accepted_s=message.accepted_s)

    def _deliver(self, outcomes: Iterable[Outcome]) -> None:
        unread = set()
        for request_id, event in outcomes:
            with self._wake:
                final = not isinstance(event, Delta)
                mailbox = self._mailboxes.pop(request_id) if final else self._mailboxes[request_id]
            mailbox.deliver(event)
            if not final and mailbox.unread > self._max_unread_events:
                unread.add(request_id)
        for request_id in unread:
            self._deliver(self._engine.fail(request_id, _unread_error(self._max_unread_events)))

    def _close(self, error: VScanError) -> None:
        """The engine ends what it holds; then whoever is left, still in the inbox, is told the same."""
        self._deliver(self._engine.end_all(error))
        self._fail_waiters(error)

    def _die(self) -> None:
        with self._wake:
            self._dead = True
        self._fail_waiters(InternalError("the engine has failed"))
        if self._on_death is not None:
            self._on_death()

    def _fail_waiters(self, error: VScanError) -> None:
        with self._wake:
            left = list(self._mailboxes.values())
            self._mailboxes.clear()
            self._inbox.clear()
        for mailbox in left:
            mailbox.deliver(Failure(error.copy()))  # each collects a traceback of its own


def _unread_error(events: int) -> VScanError:
    return ResourceExhausted(f"the answer is not read: {events} events wait", retry_delay_ms=_RETRY_DELAY_MS)
