"""Which images and videos the server has seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from vscan.specs import ReductionSpec
from vscan_client.content import Visual


class SentImages:
    """The images and videos that were sent lately, each under the reduction it was sent for: the server keeps reduced tokens,
    not files, so an image that it knows under one reduction must be sent again for another, and so must a video of which other
    frames are looked at. Beyond `capacity` the oldest are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[Visual, ReductionSpec | None], None] = OrderedDict()  # names alone

    def __len__(self) -> int:
        return len(self._seen)

    def knows(self, visual: Visual, reduction: ReductionSpec | None) -> bool:
        """Whether the server has seen it."""
        return (visual.bare, reduction) in self._seen

    def add(self, visuals: Iterable[Visual], reduction: ReductionSpec | None) -> None:
        """The server has seen these now."""
        for visual in visuals:
            self._seen[visual.bare, reduction] = None
            self._seen.move_to_end((visual.bare, reduction))
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def forget(self, visuals: Iterable[Visual], reduction: ReductionSpec | None) -> None:
        """The server said that it does not have these any more."""
        for visual in visuals:
            self._seen.pop((visual.bare, reduction), None)
