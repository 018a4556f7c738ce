"""Where blocks' hidden states lie: places, several of which may share a page. No torch.

    page   7 7 7 7   9 9 9 9        4 places a page
    place  a b . c   i . . .        a, b, c of blocks that somebody holds, i of an idle one

Page 7 can be had back when a, b and c are idle or gone, page 9 can be had now; four places are free without a new page.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from decoder_service.kv_cache.pages import PageAllocator
from decoder_service.kv_cache.segments import PageLayout


@dataclass(slots=True, eq=False)
class _Shared:
    """Pages that hold places: one, or those of a single place that takes several."""

    pages: tuple[int, ...]
    free: list[int]
    held: int = 0  # places of blocks that somebody holds


@dataclass(frozen=True, slots=True)
class Place:
    """The `slot`-th place of `pages`."""

    pages: tuple[int, ...]
    slot: int
    shared: _Shared = field(repr=False)


class PlacePool:
    """Owned by the engine's thread. Places come from the pages that keys and values come from."""

    def __init__(self, layout: PageLayout, allocator: PageAllocator) -> None:
        self._layout = layout
        self._allocator = allocator
        self._shared: dict[_Shared, None] = {}
        self._with_free: dict[_Shared, None] = {}
        self.free = 0  # places that are free in the pages there are
        self.idle_pages = 0  # pages none of whose places is held
        self._held = 0

    @property
    def held_pages(self) -> int:
        """Pages with a place that somebody holds."""
        return len(self._shared) * self._layout.pages_per_place - self.idle_pages

    @property
    def could_be_free(self) -> int:
        """Places that would be free beside those that are held, if all others were given back."""
        return self.held_pages // self._layout.pages_per_place * self._layout.places_per_page - self._held

    def take(self) -> Place:
        """A place, in a new page only if there is no free one. Raises ValueError if there are no pages for it."""
        shared = next(iter(self._with_free)) if self._with_free else self._new()
        place = Place(shared.pages, shared.free.pop(), shared)
        self.free -= 1
        if not shared.free:
            del self._with_free[shared]
        self.hold(place)
        return place

    def hold(self, place: Place) -> None:
        """Its block is held (again)."""
        if not place.shared.held:
            self.idle_pages -= len(place.pages)
        place.shared.held += 1
        self._held += 1

    def rest(self, place: Place) -> None:
        """Nobody holds its block any more."""
        place.shared.held -= 1
        self._held -= 1
        if not place.shared.held:
            self.idle_pages += len(place.pages)

    def release(self, place: Place) -> None:
        """Gives a place back that rests; its pages too, with the last one."""
        shared = place.shared
        shared.free.append(place.slot)
        self._with_free[shared] = None
        self.free += 1
        if len(shared.free) == self._layout.places_per_page:
            del self._shared[shared], self._with_free[shared]
            self.free -= len(shared.free)
            self.idle_pages -= len(shared.pages)
            self._allocator.release(shared.pages)

    def pages(self) -> list[int]:
        """All that hold places."""
        return [page for shared in self._shared for page in shared.pages]

    def check_integrity(self, held: list[Place], idle: list[Place]) -> None:
        """Raises AssertionError unless these are the places that are taken."""
        taken = {(place.shared, place.slot) for place in (*held, *idle)}
        assert len(taken) == len(held) + len(idle), "a place is held twice"
        slots = range(self._layout.places_per_page)
        free = {(shared, slot) for shared in self._shared for slot in shared.free}
        assert taken | free == {(shared, slot) for shared in self._shared for slot in slots}, "a place leaked"
        assert not taken & free, "a free place is taken"
        assert self.free == len(free)
        assert {shared for shared, _ in free} == set(self._with_free)
        assert self._held == len(held)
        for shared in self._shared:
            assert shared.held == sum(place.shared is shared for place in held)
        assert self.idle_pages == sum(len(shared.pages) for shared in self._shared if not shared.held)

    def _new(self) -> _Shared:
        pages = tuple(self._allocator.take_singly(self._layout.pages_per_place))
        shared = _Shared(pages, list(reversed(range(self._layout.places_per_page))))
        self._shared[shared] = self._with_free[shared] = None
        self.free += len(shared.free)
        self.idle_pages += len(pages)
        return shared
