"""Who waits: tenants in turn by what they were served, within a tenant by priority, then by arrival. No torch.

tenant   served rows   waiting (priority)
acme     9,000         a (0)  b (5)  c (0)      zoo is next, since it was served less; then acme's b, a, c
zoo      2,000         d (0)
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from decoder_service.sequence import Sequence

_Entry = tuple[int, int, int, Sequence]  # -priority, the request's arrival, which of its samples


@dataclass(slots=True)
class _Tenant:
    served_rows: int
    requests: int = 0  # that have not ended
    waiting: list[_Entry] = field(default_factory=list)


class FairQueue:
    """Owned by the engine's thread."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._arrivals: dict[str, int] = {}  # of requests that have not ended
        self._next = 0

    def __len__(self) -> int:
        return sum(len(tenant.waiting) for tenant in self._tenants.values())

    def add(self, sequence: Sequence) -> None:
        """Waits from now on; one that was preempted keeps its place by arrival, and samples have that of their request."""
        name = sequence.request_id
        if name not in self._arrivals:
            self._next += 1
            self._arrivals[name] = self._next
            self._tenant(sequence).requests += 1
        insort(self._tenant(sequence).waiting, self._entry(sequence))

    def first(self, passed_over: Callable[[Sequence], bool]) -> Sequence | None:
        """Who is next among those that are not passed over; it still waits."""
        waiting = [tenant for tenant in self._tenants.values() if tenant.waiting]
        for tenant in sorted(waiting, key=lambda tenant: (tenant.served_rows, tenant.waiting[0][1])):
            for *_, sequence in tenant.waiting:
                if not passed_over(sequence):
                    return sequence
        return None

    def pop(self, sequence: Sequence) -> None:
        """It waits no longer."""
        self._tenant(sequence).waiting.remove(self._entry(sequence))

    def served(self, sequence: Sequence, rows: int) -> None:
        """Its tenant got so much."""
        self._tenant(sequence).served_rows += rows

    def ended(self, sequence: Sequence) -> None:
        """Its request is gone and waits no more; a tenant of whom nothing is left is forgotten."""
        del self._arrivals[sequence.request_id]
        tenant = self._tenant(sequence)
        tenant.requests -= 1
        if not tenant.requests:
            del self._tenants[sequence.request.tenant]

    def _entry(self, sequence: Sequence) -> _Entry:
        return -sequence.request.priority, self._arrivals[sequence.request_id], sequence.sample, sequence

    def _tenant(self, sequence: Sequence) -> _Tenant:
        """A newcomer begins where the least served one is: time away earns nothing."""
        if sequence.request.tenant not in self._tenants:
            least = min((tenant.served_rows for tenant in self._tenants.values()), default=0)
            self._tenants[sequence.request.tenant] = _Tenant(least)
        return self._tenants[sequence.request.tenant]
