"""Who runs in the next step: first come, first served. No torch here.

waiting  d c ──▶ running  a b       a step = one row of a and of b, and the whole prompts of those that begin with it
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from decoder_service.request import State, Ticket
from vscan.errors import InvalidArgument, ResourceExhausted

# Told to a caller that finds the queue full, before an answer's usual duration is known; and the bounds of that estimate.
_FIRST_ESTIMATE_MS = 1000.0
_LEAST_RETRY_MS = 100
_LONGEST_RETRY_MS = 30_000
_NEWEST_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """What one step runs."""

    beginning: tuple[Ticket, ...]
    going_on: tuple[Ticket, ...]

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """All of it; the order of the rows."""
        return self.beginning + self.going_on


class Scheduler:
    """Owned by the engine's thread; `check` and `check_room` may be called from any.

    Args:
        max_running: sequences in one step.
        max_waiting: accepted requests that do not run yet.
        max_context_tokens: rows of a prompt and its answer together.
        max_prompt_rows_per_step: prompts begin together up to this many rows; one alone may have more.
    """

    def __init__(
        self,
        *,
        max_context_tokens: int,
        max_running: int = 4,
        max_waiting: int = 64,
        max_prompt_rows_per_step: int = 4096,
    ) -> None:
        if min(max_context_tokens, max_running, max_waiting, max_prompt_rows_per_step) < 1:
            raise ValueError("every limit of the scheduler is at least 1")
        self._max_context_tokens = max_context_tokens
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_prompt_rows = max_prompt_rows_per_step
        self._waiting: deque[Ticket] = deque()
        self._running: dict[str, Ticket] = {}
        self._usual_ms = _FIRST_ESTIMATE_MS

    @property
    def waiting(self) -> int:
        """Requests accepted and not yet running."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def check(self, prompt_rows: int, max_new_tokens: int) -> None:
        """Raises InvalidArgument if such a request can never run."""
        limit = f"{self._max_context_tokens} tokens of prompt and answer together"
        if prompt_rows >= self._max_context_tokens:
            raise InvalidArgument("prompt", f"{prompt_rows} tokens", limit=limit)
        if prompt_rows + max_new_tokens > self._max_context_tokens:
            raise InvalidArgument("sampling.max_new_tokens", f"{max_new_tokens} after {prompt_rows} of prompt", limit=limit)

    def check_room(self, on_the_way: int = 0) -> None:
        """Raises ResourceExhausted if no further request may wait, `on_the_way` having been accepted but not added yet."""
        queued = self.waiting + on_the_way
        if queued >= self._max_waiting:
            delay_ms = self._usual_ms * queued / self._max_running
            raise ResourceExhausted(
                f"{queued} requests wait, limit {self._max_waiting}",
                retry_delay_ms=int(min(max(delay_ms, _LEAST_RETRY_MS), _LONGEST_RETRY_MS)),
            )

    def add(self, ticket: Ticket) -> None:
        """Takes an accepted request."""
        self._waiting.append(ticket)

    def schedule(self) -> Step:
        """The next step. Requests that begin with it are running from here on."""
        going_on = tuple(self._running.values())
        beginning: list[Ticket] = []
        rows = 0
        while self._waiting and len(self._running) < self._max_running:
            rows += self._waiting[0].request.prompt.rows
            if beginning and rows > self._max_prompt_rows:
                break
            ticket = self._waiting.popleft()
            ticket.move(State.RUNNING)
            self._running[ticket.request_id] = ticket
            beginning.append(ticket)
        return Step(tuple(beginning), going_on)

    def remove(self, ticket: Ticket, to: State) -> None:
        """The request ends in the final state `to`."""
        if ticket.state is State.WAITING:
            self._waiting.remove(ticket)
        self._running.pop(ticket.request_id, None)
        ticket.move(to)

    def learn(self, duration_ms: float) -> None:
        """How long an answer took, from its first step to its end: the base of retry delays."""
        self._usual_ms += _NEWEST_WEIGHT * (duration_ms - self._usual_ms)
