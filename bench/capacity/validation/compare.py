"""Quantities of a load, served and simulated, and their ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.capacity.validation.served import Seen

WITHIN = 0.15
# Of counts, in standard deviations of a Poisson count: of few images, how many were busy at the wrong moment is chance.
_BY_CHANCE = 2.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantity."""

    name: str
    served: float
    simulated: float
    is_count: bool = False

    @property
    def ratio(self) -> float:
        """Simulated over served; 1 where both are 0."""
        if self.served == 0:
            return 1.0 if self.simulated == 0 else float("inf")
        return self.simulated / self.served

    @property
    def met(self) -> bool:
        """Within 15 %; of counts, also where the difference is one of chance."""
        by_chance = _BY_CHANCE * math.sqrt(max(self.served, self.simulated))
        return abs(self.ratio - 1) <= WITHIN or (self.is_count and abs(self.served - self.simulated) <= by_chance)

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {"name": self.name, "served": self.served, "simulated": self.simulated, "ratio": self.ratio, "met": self.met}


_QUANTITIES: dict[str, Callable[[Seen], float]] = {
    "answers a second": lambda seen: seen.per_second,
    "first token, mean, ms": lambda seen: float(np.mean(seen.first_ms)),
    "first token, p95, ms": lambda seen: float(np.quantile(seen.first_ms, 0.95)),
    "whole answer, mean, ms": lambda seen: float(np.mean(seen.total_ms)),
}
_COUNTS: dict[str, Callable[[Seen], float]] = {
    "images encoded": lambda seen: seen.encoded,
    "found in memory": lambda seen: seen.places["memory"],
    "found in Redis": lambda seen: seen.places["redis"],
    "failed": lambda seen: seen.failed,
}


def compared(served: Seen, simulated: Seen) -> list[Compared]:
    """All quantities."""
    figures = [Compared(name, of(served), of(simulated)) for name, of in _QUANTITIES.items()]
    return figures + [Compared(name, of(served), of(simulated), is_count=True) for name, of in _COUNTS.items()]
