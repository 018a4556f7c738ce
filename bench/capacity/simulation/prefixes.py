"""What a decoder remembers of images: their tokens in memory, and the rows of their prefixes in idle pages of the KV cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Remembered:
    """The least recently used go first. `capacity` None: no bound; each thing takes some of it."""

    def __init__(self, capacity: float | None) -> None:
        self.used = 0.0
        self._capacity = capacity
        self._sizes: OrderedDict[Hashable, float] = OrderedDict()

    def find(self, name: Hashable) -> bool:
        """Whether it is there; then it was used now."""
        if name not in self._sizes:
            return False
        self._sizes.move_to_end(name)
        return True

    def add(self, name: Hashable, size: float) -> None:
        """It is there from now on, if there is room for it at all."""
        self.take(name)
        self._sizes[name] = size
        self.used += size
        if self._capacity is not None:
            self.shrink(self._capacity)

    def take(self, name: Hashable) -> bool:
        """It is not there any more; whether it was."""
        size = self._sizes.pop(name, None)
        self.used -= size or 0.0
        return size is not None

    def shrink(self, most: float) -> None:
        """No more than so much is left."""
        while self._sizes and self.used > most:
            _, size = self._sizes.popitem(last=False)
            self.used -= size
