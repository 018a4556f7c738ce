"""Which images the server has seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from vscan.specs import ReductionSpec


class SentImages:
    """The images that were sent lately, each under the reduction it was sent for: the server keeps reduced tokens, not
    files, so an image that it knows under one reduction must be sent again for another. Beyond `capacity` the oldest are
    forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[bytes, ReductionSpec | None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def knows(self, sha256: bytes, reduction: ReductionSpec | None) -> bool:
        """Whether the server has seen it."""
        return (sha256, reduction) in self._seen

    def add(self, digests: Iterable[bytes], reduction: ReductionSpec | None) -> None:
        """The server has seen these now."""
        for sha256 in digests:
            self._seen[sha256, reduction] = None
            self._seen.move_to_end((sha256, reduction))
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def forget(self, digests: Iterable[bytes], reduction: ReductionSpec | None) -> None:
        """The server said that it does not have these any more."""
        for sha256 in digests:
            self._seen.pop((sha256, reduction), None)
