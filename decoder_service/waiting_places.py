"""The places of those that wait: a bound for all tenants together, and who gives way to whom within it. No torch.

limit 8     acme 8            zoo asks: acme's youngest gives way        acme 7   zoo 1
            acme 5   zoo 3    zoo asks: so it does again                 acme 4   zoo 4
            acme 4   zoo 4    either asks: refused, nobody has more
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


def who_gives_way(counts: Mapping[str, int], tenant: str) -> str | None:
    """Of a full queue the tenant with most places, if it still has as many as `tenant` once a place has changed hands."""
    most = max(counts, key=lambda name: (counts[name], name), default=tenant)
    return most if counts.get(most, 0) > counts.get(tenant, 0) + 1 else None


def has_place(counts: Mapping[str, int], arriving: Iterable[str], *, limit: int) -> bool:
    """Whether the last of `arriving` gets a place when all come, one after the other, to a queue of `counts` by tenant."""
    places, got = Counter(counts), True
    for tenant in arriving:
        full = places.total() >= limit
        loser = who_gives_way(places, tenant) if full else None
        got = not full or loser is not None
        if loser is not None:
            places[loser] -= 1
        if got:
            places[tenant] += 1
    return got
