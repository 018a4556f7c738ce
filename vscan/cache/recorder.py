"""What the caches tell about themselves: counts, never keys."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Protocol

from vscan.cache.entry import Flaw


class Tier(StrEnum):
    """Which cache."""

    MEMORY = "memory"
    REDIS = "redis"


class Outcome(StrEnum):
    """What became of looking up or writing one key."""

    HIT = "hit"
    MISS = "miss"
    BAD_ENTRY = "bad_entry"  # an entry was there and was rejected; a miss for the request
    OK = "ok"  # written
    ERROR = "error"  # the tier failed or was too slow
    SKIPPED = "skipped"  # the tier was not asked: its circuit breaker is open


class CacheRecorder(Protocol):
    """Receives the counts; `vscan.telemetry.metrics.CacheMetrics` is one. Calls must be cheap and must not raise."""

    def looked_up(self, tier: str, result: str, count: int = 1) -> None:
        """`count` keys were looked up, all with one outcome."""

    def written(self, tier: str, result: str) -> None:
        """An entry was written, or not."""

    def holds(self, entries: int, size_bytes: int) -> None:
        """What the memory tier holds now."""

    def rejected(self, flaw: str) -> None:
        """A Redis entry was not to be trusted, for this reason (see `Flaw`)."""

    def failed(self, operation: str, error: str) -> None:
        """A Redis operation ("get", "set", "exists", "delete") failed, with an error of this class."""


class CountingRecorder:
    """Counts in the process: for tests, and where no metrics are wanted."""

    def __init__(self) -> None:
        self.lookups: Counter[tuple[str, str]] = Counter()
        self.writes: Counter[tuple[str, str]] = Counter()
        self.flaws: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.memory: tuple[int, int] = (0, 0)  # entries, bytes

    def looked_up(self, tier: str, result: str, count: int = 1) -> None:
        """See `CacheRecorder`."""
        self.lookups[tier, result] += count

    def written(self, tier: str, result: str) -> None:
        """See `CacheRecorder`."""
        self.writes[tier, result] += 1

    def holds(self, entries: int, size_bytes: int) -> None:
        """See `CacheRecorder`."""
        self.memory = (entries, size_bytes)

    def rejected(self, flaw: str) -> None:
        """See `CacheRecorder`."""
        self.flaws[Flaw(flaw)] += 1

    def failed(self, operation: str, error: str) -> None:
        """See `CacheRecorder`."""
        self.errors[operation, error] += 1
