"""Which pages are free: one list for all segments. No torch.

Attention on a CPU reads views, so a sequence's pages should follow each other. A sequence therefore hopes for the pages behind
its own: they stay free, but others begin there only when nothing else is left.

    pages   P a a a . . b b b b . . . . . . T T .    . free, some of it hoped for by a, b or T
    c begins behind b's hopes; a grows into the page behind its last

What is given back soon (T) begins at the far end: what stays after a request has ended, for later ones to find, goes in the
order in which it came, and leaves long stretches. Single pages (P) come from the smallest numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, islice

_FREE, _TAKEN, _HOPED = 0, 1, 2
_NOT_TAKEN = re.compile(rb"[\x00\x02]+")
_NO_HOPES = bytes((_FREE, _TAKEN, _FREE)) + bytes(253)


class PageAllocator:
    """Owned by the engine's thread. Pages have numbers from 0."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.free = pages
        self._states = bytearray(pages)

    def take(self, count: int, *, after: int | None = None, room: int = 0, far: bool = False) -> list[int]:
        """Takes `count` pages, in as few runs as can be.

        Args:
            far: a run that begins anew does so at the far end.
            after: the page they should follow.
            room: pages to hope for behind them; only for a run that begins anew.

        Raises:
            ValueError: fewer are free.
        """
        if count > self.free:
            raise ValueError(f"{count} pages of {self.free} free ones")
        first = self._following(count, after)
        if first is None:
            first = self._fresh(count, room, far)
        pages = list(range(first, first + count)) if first is not None else self._scattered(count)
        for page in pages:
            self._states[page] = _TAKEN
        self.free -= count
        return pages

    def has_stretch(self, count: int, after: int | None, room: int) -> bool:
        """Whether `count` pages would follow `after`, or begin anew with `room` behind them, at nobody's cost."""
        return self._following(count, after) is not None or self._states.find(bytes(count + room)) >= 0

    def take_singly(self, count: int) -> list[int]:
        """Takes `count` pages that need not follow each other. Raises ValueError if fewer are free."""
        if count > self.free:
            raise ValueError(f"{count} pages of {self.free} free ones")
        pages = []
        for _ in range(count):
            plain = self._states.find(_FREE)
            pages.append(plain if plain >= 0 else self._states.find(_HOPED))
            self._states[pages[-1]] = _TAKEN
        self.free -= count
        return pages

    def hope(self, pages: range) -> range:
        """Marks those of `pages` that are free up to the first that is not; returns them, for `give_up`."""
        end = pages.start
        while end < min(pages.stop, self.pages) and self._states[end] == _FREE:
            self._states[end] = _HOPED
            end += 1
        return range(pages.start, end)

    def give_up(self, pages: Iterable[int]) -> None:
        """What is left of a hope is plainly free again."""
        for page in pages:
            if self._states[page] == _HOPED:
                self._states[page] = _FREE

    def release(self, pages: Sequence[int]) -> None:
        """Gives taken pages back. Raises ValueError for one that is not taken."""
        for page in pages:
            if self._states[page] != _TAKEN:
                raise ValueError(f"page {page} is not taken")
            self._states[page] = _FREE
        self.free += len(pages)

    def check_integrity(self, taken: Iterable[int]) -> None:
        """Raises AssertionError unless exactly the pages in `taken`, each named once, are taken."""
        named = sorted(taken)
        marked = [page for page, state in enumerate(self._states) if state == _TAKEN]
        assert named == marked, f"{len(named)} pages are held, {len(marked)} are marked as taken"
        assert self.free == self.pages - len(marked)

    def _following(self, count: int, after: int | None) -> int | None:
        if after is None or after + 1 + count > self.pages:
            return None
        return None if _TAKEN in self._states[after + 1 : after + 1 + count] else after + 1

    def _fresh(self, count: int, room: int, far: bool) -> int | None:
        """A run with room behind it, or with less of it, or none, or at the cost of others' hopes."""
        for states, wanted in (
            *((self._states, count + part) for part in (room, room // 4, room // 16, 0)),
            (self._states.translate(_NO_HOPES), count),
        ):
            found = states.rfind(bytes(wanted)) if far else states.find(bytes(wanted))
            if found >= 0:
                return found
        return None

    def _scattered(self, count: int) -> list[int]:
        """From the longest stretches, so that they are few; in ascending order."""
        stretches = sorted((range(*found.span()) for found in _NOT_TAKEN.finditer(self._states)), key=len, reverse=True)
        return sorted(islice(chain.from_iterable(stretches), count))
