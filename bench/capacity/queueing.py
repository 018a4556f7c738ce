"""Waits, by the formulas that plans rest on. Rates are a second, times milliseconds.

Erlang's C formula; Allen and Cunneen's approximation for general arrivals and services, which for one server and Poisson
arrivals is Pollaczek and Khinchine's exact one (A. O. Allen, Probability, Statistics, and Queueing Theory, 2nd edition,
chapter 5); waits of those that wait taken as exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log


@dataclass(frozen=True, slots=True)
class Wait:
    """Who waits at all, and how long those do on average."""

    share: float
    mean_of_those_ms: float

    @property
    def mean_ms(self) -> float:
        """Over all."""
        return self.share * self.mean_of_those_ms

    def quantile_ms(self, quantile: float) -> float:
        """P(W > t) = share x exp(-t / mean)."""
        if self.share <= 1 - quantile:
            return 0.0
        return self.mean_of_those_ms * log(self.share / max(1e-9, 1 - quantile))


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
