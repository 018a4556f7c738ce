"""What every target does with a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from studies.load.record import Record
from studies.load.workload import Ask


class Seen:
    """What a target tells of one request while it runs."""

    def __init__(self, record: Record, clock: Callable[[], float]) -> None:
        self._record, self._clock = record, clock

    def content(self) -> None:
        """A piece of the answer came."""
        self._record.content_s.append(self._clock())

    def usage(self, *, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """What the server counted."""
        self._record.prompt_tokens, self._record.completion_tokens = prompt_tokens, completion_tokens

    def visual(self, *, before: int | None, after: int | None, average: float | None, places: Sequence[str] = ()) -> None:
        """Visual tokens of all images, and where each image's were found."""
        self._record.visual_before, self._record.visual_after, self._record.visual_average = before, after, average
        self._record.places = tuple(places)


class Target(Protocol):
    """Somebody who answers."""

    async def ask(self, ask: Ask, seen: Seen) -> None:
        """Sends one request and waits for its end. Raises VScanError where it is not answered whole."""

    async def close(self) -> None:
        """Ends connections and processes."""
