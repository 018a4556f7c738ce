"""A circuit breaker: after some faults in a row a dependency is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """
    CLOSED ──faults in a row──▶ OPEN ──pause over──▶ one probe ──success──▶ CLOSED
                                  ▲                      └──fault──▶ OPEN

    A probe that never reports (its caller was cancelled) costs one more pause. For one event loop; not thread-safe.
    """

    def __init__(self, *, faults: int, pause_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = faults
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._faults = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the dependency counts as away."""
        return self._faults >= self._limit

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
        self._faults = 0
        return was_open

    def failed(self) -> bool:
        """Reports a fault; true if this opened the breaker."""
        was_open = self.is_open
        self._faults += 1
        if self.is_open:
            self._probe_at = self._clock() + self._pause_seconds
        return self.is_open and not was_open
