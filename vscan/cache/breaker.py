"""A circuit breaker: after some faults in a row a dependency is left alone for a while."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class CircuitBreaker:
    """
    CLOSED ──faults in a row──▶ OPEN ──pause over──▶ one probe ──success──▶ CLOSED
                                  ▲                      └──fault──▶ OPEN

    A probe that never reports (its caller was cancelled) costs one more pause. Faults that a neighbour has met count here too,
    until it succeeds. For one event loop; not thread-safe.
    """

    def __init__(self, *, faults: int, pause_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = faults
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._faults: Counter[str] = Counter()  # in a row, by who met them
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the dependency counts as away."""
        return self._faults.total() >= self._limit

    def allows(self) -> bool:
        """Whether to try now. While open, true for one caller a pause: the probe."""
        if not self.is_open:
            return True
        if self._clock() < self._probe_at:
            return False
        self._probe_at = self._clock() + self._pause_seconds
        return True

    def succeeded(self) -> bool:
        """Reports a success; true if this closed the breaker."""
        was_open = self.is_open
        self._faults.clear()
        return was_open

    def forgive(self, neighbour: str) -> bool:
        """Reports a success of a neighbour: what it met counts no more; true if this closed the breaker."""
        was_open = self.is_open
        del self._faults[neighbour]
        return was_open and not self.is_open

    def failed(self, by: str = "") -> bool:
        """Reports a fault, of a neighbour if it is named; true if this opened the breaker."""
        was_open = self.is_open
        self._faults[by] += 1
        if self.is_open:
            self._probe_at = self._clock() + self._pause_seconds
        return self.is_open and not was_open
