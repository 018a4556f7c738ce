"""Waits, by the formulas that plans rest on. Rates are a second, times milliseconds.

Erlang's C formula; Allen and Cunneen's approximation for general arrivals and services, which for one server and Poisson
arrivals is Pollaczek and Khinchine's exact one (A. O. Allen, Probability, Statistics, and Queueing Theory, 2nd edition,
chapter 5); waits of those that wait taken as exponential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

Chances = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Wait:
    """Who waits at all, and how long those do on average."""

    share: float
    mean_of_those_ms: float

    @property
    def mean_ms(self) -> float:
        """Over all."""
        return self.share * self.mean_of_those_ms

    def far_ms(self, rare: float) -> float:
        """What only the share `rare` waits longer than."""
        return self.mean_of_those_ms * log(self.share / rare) if self.share > rare else 0.0

    def chances(self, bins: int, bin_ms: float) -> Chances:
        """The probability of each bin: nobody is waited for, or exponential."""
        chances: Chances = np.zeros(bins)
        if self.mean_of_those_ms:
            later = self.share * np.exp(-np.arange(bins + 1) * bin_ms / self.mean_of_those_ms)
            chances += later[:-1] - later[1:]
            chances[0] += 1 - self.share
        else:
            chances[0] = 1.0
        return chances


@dataclass(frozen=True, slots=True)
class Way:
    """Some of the requests: what they take at least, and what they wait for, one after the other."""

    share: float
    least_ms: float
    waits: Sequence[Wait]


_BINS = 1024
_RARE = 1e-4  # waits longer than what so few wait are left out, and do not make the bins wider


def quantile_ms(ways: Sequence[Way], quantile: float) -> float:
    """Of all requests together, waits being independent of each other. The distributions are added up in bins."""
    far_ms = max(way.least_ms + sum(wait.far_ms(_RARE) for wait in way.waits) for way in ways)
    bin_ms = max(far_ms / _BINS, 1e-6)
    total = np.zeros(_BINS)
    for way in ways:
        chances = np.eye(1, _BINS)[0]
        for each in way.waits:
            chances = np.convolve(chances, each.chances(_BINS, bin_ms))[:_BINS]
        first = min(_BINS - 1, round(way.least_ms / bin_ms))
        total[first:] += way.share * chances[: _BINS - first]
    return (min(int(np.searchsorted(np.cumsum(total), quantile)), _BINS - 1) + 1) * bin_ms


def erlang_c(servers: int, offered: float) -> float:
    """The probability of a wait, `offered` being rate x service, below `servers`. By Erlang's B formula, step by step."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def wait(servers: int, per_second: float, service_ms: float, *, arrivals_cv2: float = 1.0, services_cv2: float = 1.0) -> Wait:
    """Allen and Cunneen: C / (servers - offered) x service x (ca² + cs²) / 2. Raises ValueError where the queue only grows.

    One server, 10 a second, 50 ms, always the same (cs² = 0): half of the time busy, 25 ms on average, 50 for those that wait.
    """
    offered = per_second * service_ms / 1e3
    if offered >= servers:
        raise ValueError(f"{offered:.2f} are offered to {servers}")
    those_ms = service_ms / (servers - offered) * (arrivals_cv2 + services_cv2) / 2
    return Wait(erlang_c(servers, offered), those_ms)
