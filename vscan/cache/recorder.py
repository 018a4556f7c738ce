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
    """What became of looking for one key."""

    HIT = "hit"
    MISS = "miss"
    CORRUPT = "corrupt"  # an entry was there and was rejected; counts as a miss for the request
    FAULT = "fault"  # the tier failed or was too slow
    SKIPPED = "skipped"  # the tier was not asked: its circuit breaker is open


class CacheRecorder(Protocol):
    """Receives the counts. Calls must be cheap and must not raise."""

    def looked_up(self, tier: Tier, outcome: Outcome) -> None:
        """One key was looked for."""

    def entry_rejected(self, flaw: Flaw) -> None:
        """A Redis entry was not to be trusted and is deleted."""

    def redis_fault(self, operation: str, fault: str) -> None:
        """A Redis operation failed; `fault` is the error's class name."""


class CountingRecorder:
    """Counts in the process: for tests, and where no metrics are wanted."""

    def __init__(self) -> None:
        self.lookups: Counter[tuple[Tier, Outcome]] = Counter()
        self.flaws: Counter[Flaw] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()

    def looked_up(self, tier: Tier, outcome: Outcome) -> None:
        """One key was looked for."""
        self.lookups[tier, outcome] += 1

    def entry_rejected(self, flaw: Flaw) -> None:
        """A Redis entry was not to be trusted."""
        self.flaws[flaw] += 1

    def redis_fault(self, operation: str, fault: str) -> None:
        """A Redis operation failed."""
        self.faults[operation, fault] += 1
