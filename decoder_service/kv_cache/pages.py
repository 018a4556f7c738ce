"""Which pages are free: one list for all segments. No torch.

Attention on a CPU reads views, so a sequence's pages should follow each other. A sequence therefore hopes for the pages behind
its own: they stay free, but others begin there only when nothing else is left.

    pages   a a a . . b b b b . . . . P    . free, hoped for by a or b
    c begins behind b's hopes; a grows into the page behind its last

What no run needs (P) comes from the far end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_FREE, _TAKEN, _HOPED = 0, 1, 2
_NO_HOPES = bytes((_FREE, _TAKEN, _FREE)) + bytes(253)


class PageAllocator:
    """Owned by the engine's thread. Pages have numbers from 0."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.free = pages
        self._states = bytearray(pages)

    def take(self, count: int, *, after: int | None = None, room: int = 0) -> list[int]:
        """Takes `count` pages, in as few runs as can be.

        Args:
            after: the page they should follow.
            room: pages to hope for behind them; only for a run that begins anew.

        Raises:
            ValueError: fewer are free.
        """
        if count > self.free:
            raise ValueError(f"{count} pages of {self.free} free ones")
        first = self._following(count, after)
        if first is None:
            first = self._fresh(count, room)
        pages = list(range(first, first + count)) if first is not None else self._scattered(count)
        for page in pages:
            self._states[page] = _TAKEN
        self.free -= count
        return pages

    def take_far(self, count: int) -> list[int]:
        """Takes `count` pages of the far end, where they are in no run's way. Raises ValueError if fewer are free."""
        if count > self.free:
            raise ValueError(f"{count} pages of {self.free} free ones")
        pages = []
        for _ in range(count):
            plain = self._states.rfind(_FREE)
            pages.append(plain if plain >= 0 else self._states.rfind(_HOPED))
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

    def _fresh(self, count: int, room: int) -> int | None:
        """A run with room behind it, or without, or at the cost of others' hopes."""
        for states, wanted in ((self._states, count + room), (self._states, count), (None, count)):
            found = (states or self._states.translate(_NO_HOPES)).find(bytes(wanted))
            if found >= 0:
                return found
        return None

    def _scattered(self, count: int) -> list[int]:
        found: list[int] = []
        for page, state in enumerate(self._states):
            if state != _TAKEN:
                found.append(page)
                if len(found) == count:
                    break
        return found
