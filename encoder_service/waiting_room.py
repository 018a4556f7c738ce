"""Who waits to be encoded, from admission until its batch starts: bounded in number and in bytes. No torch.

enter ──▶ file ──────▶ may_decode ──▶ file and pixels ──▶ started
  │ refused where there are          │ holds back while prepared
  │ too many, or too many bytes      │ ones fill the room
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from encoder_service.images import bytes_text
from vscan.errors import ResourceExhausted

_MIN_RETRY_DELAY_MS = 50
_RECENT = 16


class Place:
    """One's place in the room."""

    def __init__(self, room: WaitingRoom, file_bytes: int) -> None:
        self.since = room.clock()
        self.file_bytes = file_bytes
        self.prepared_bytes = 0
        self._room: WaitingRoom | None = room

    def prepared(self, size_bytes: int) -> None:
        """It now holds pixels beside its file."""
        if self._room is not None:
            self.prepared_bytes = size_bytes
            self._room.changed()

    def started(self) -> None:
        """Its batch starts: the wait is over."""
        if self._room is not None:
            self._room.remember(self)
        self.leave()

    def leave(self) -> None:
        """Frees the place; a second time does nothing."""
        room, self._room = self._room, None
        if room is not None:
            room.remove(self)


class WaitingRoom:
    """Images wait in one, videos in another. Belongs to one event loop.

    Args:
        what: those who wait, in the plural.
        max_places: how many may wait.
        max_bytes: of all their files, and of the pixels of those that are prepared. A single one may have more.
        on_change: told of each change of how many wait.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        what: str,
        *,
        max_places: int,
        max_bytes: int,
        on_change: Callable[[int], None] = lambda change: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._what = what
        self._max_places = max_places
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._places: dict[Place, None] = {}  # in the order of arrival
        self._recent_seconds: deque[float] = deque(maxlen=_RECENT)
        self._change = asyncio.Event()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def held_bytes(self) -> int:
        """Files and pixels of all who wait."""
        return sum(place.file_bytes + place.prepared_bytes for place in self._places)

    @contextmanager
    def enter(self, file_bytes: int) -> Iterator[Place]:
        """A place, from before the file is decoded until its batch starts. Raises ResourceExhausted: says when to come back."""
        self._refuse(file_bytes)
        place = Place(self, file_bytes)
        self._places[place] = None
        self._on_change(1)
        try:
            yield place
        finally:
            place.leave()

    async def may_decode(self) -> None:
        """Returns once more pixels may be made. As many as decode at once may go over the bound together."""
        while self.held_bytes > self._max_bytes and any(place.prepared_bytes for place in self._places):
            self._change.clear()
            await self._change.wait()

    def changed(self) -> None:
        """Lets those who are held back look again."""
        self._change.set()

    def remember(self, place: Place) -> None:
        """A wait that ended in a batch."""
        self._recent_seconds.append(self.clock() - place.since)

    def remove(self, place: Place) -> None:
        """Of one who leaves."""
        del self._places[place]
        self._on_change(-1)
        self.changed()

    def _refuse(self, file_bytes: int) -> None:
        held, count = self.held_bytes, len(self._places)
        if count >= self._max_places:
            raise self._full(f"{count} {self._what} wait to be encoded already")
        if count and held + file_bytes > self._max_bytes:
            raise self._full(f"{self._what} of {bytes_text(held)} wait to be encoded already")

    def _full(self, why: str) -> ResourceExhausted:
        return ResourceExhausted(why, retry_delay_ms=self._retry_delay_ms())

    def _retry_delay_ms(self) -> int:
        """About when those who wait now will have started: as long as others have waited of late, or the eldest by now."""
        waits = self._recent_seconds
        usual = sum(waits) / len(waits) if waits else 0.0
        eldest = max((self.clock() - place.since for place in self._places), default=0.0)
        return max(_MIN_RETRY_DELAY_MS, math.ceil(1000 * max(usual, eldest)))
