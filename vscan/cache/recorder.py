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
    REFUSED = "refused"  # not written: another replica makes this entry, or has made it


class LeaseOutcome(StrEnum):
    """What became of a replica's turn at making an entry."""

    LED = "led"  # it was nobody else's
    WAITED = "waited"  # another replica made the entry
    TAKEN_OVER = "taken_over"  # it waited, and the one before gave up or died
    ALONE = "alone"  # Redis did not answer: made without asking anybody
    LOST = "lost"  # ran out, or was forgotten by Redis, while the entry was made


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

    def asked(self, operation: str, duration_ms: float, error: str = "") -> None:
        """A Redis operation took so long, a wait for a connection included, and failed if there is an error's class."""

    def failed(self, operation: str, error: str) -> None:
        """A Redis operation (see `vscan.cache.redis_link.Operation`) failed, with an error of this class."""

    def left_alone(self, access: str, away: bool) -> None:
        """The circuit breaker of reads or writes ("read", "write") opened or closed."""

    def leased(self, outcome: str) -> None:
        """A turn at making an entry came out so (see `LeaseOutcome`)."""


class CountingRecorder:
    """Counts in the process: for tests, and where no metrics are wanted."""

    def __init__(self) -> None:
        self.lookups: Counter[tuple[str, str]] = Counter()
        self.writes: Counter[tuple[str, str]] = Counter()
        self.flaws: Counter[str] = Counter()
        self.operations: Counter[tuple[str, str]] = Counter()  # by operation, and an error's class
        self.errors: Counter[tuple[str, str]] = Counter()
        self.memory: tuple[int, int] = (0, 0)  # entries, bytes
        self.away: dict[str, bool] = {}
        self.leases: Counter[str] = Counter()

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

    def asked(self, operation: str, duration_ms: float, error: str = "") -> None:
        """See `CacheRecorder`."""
        self.operations[operation, error] += 1

    def failed(self, operation: str, error: str) -> None:
        """See `CacheRecorder`."""
        self.errors[operation, error] += 1

    def left_alone(self, access: str, away: bool) -> None:
        """See `CacheRecorder`."""
        self.away[access] = away

    def leased(self, outcome: str) -> None:
        """See `CacheRecorder`."""
        self.leases[LeaseOutcome(outcome)] += 1
