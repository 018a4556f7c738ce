"""Who is next: tenants in turn by what they got, within a tenant by priority, then by arrival. No torch.

tenant   got      runs        waits (priority)
acme     9,000    e: 1,000    a (0)  b (5)  c (0)      zoo is next, since 2,000 < 10,000; then acme's b, a, c
zoo      2,000                d (0)

What a tenant got is counted in rows x layers; the prompts of those that run count as if they had run, so that places in the
batch go in turn too. Time away earns nothing (start-time fair queueing): a tenant that did not wait comes back at `_now`, where
those stood that were served last, or where it stood itself, if that is further.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from decoder_service.sequence import Sequence

_Entry = tuple[int, int, int, Sequence]  # -priority, the request's arrival, which of its samples


@dataclass(slots=True)
class _Tenant:
    got: int = 0
    waiting: list[_Entry] = field(default_factory=list)
    running: dict[str, Sequence] = field(default_factory=dict)

    @property
    def level(self) -> int:
        return self.got + sum(sequence.owed for sequence in self.running.values())

    @property
    def fresh(self) -> list[Sequence]:
        """Who waits and never ran, in order."""
        return [sequence for *_, sequence in self.waiting if not sequence.begun]


class FairQueue:
    """Owned by the engine's thread; `fresh` may be read from any: it is replaced, never changed."""

    def __init__(self) -> None:
        self.fresh: Mapping[str, int] = {}  # by tenant: how many wait and never ran
        self._tenants: dict[str, _Tenant] = {}
        self._arrivals: dict[str, int] = {}  # of requests that have not ended
        self._next = 0
        self._now = 0

    def __len__(self) -> int:
        return sum(len(tenant.waiting) for tenant in self._tenants.values())

    def add(self, sequence: Sequence) -> None:
        """A new request waits from now on."""
        self._next += 1
        self._arrivals[sequence.request_id] = self._next
        tenant = self._tenants.setdefault(sequence.request.tenant, _Tenant())
        if not tenant.waiting:
            active = [each.level for each in self._tenants.values() if each.waiting or each.running]
            self._now = max(self._now, min(active, default=0))
            tenant.got += max(0, self._now - tenant.level)
        self._wait(sequence)

    def first(self, passed_over: Callable[[Sequence], bool]) -> Sequence | None:
        """Who is next among those that are not passed over; it still waits."""
        waiting = [tenant for tenant in self._tenants.values() if tenant.waiting]
        for tenant in sorted(waiting, key=lambda tenant: (tenant.level, tenant.waiting[0][1])):
            for *_, sequence in tenant.waiting:
                if not passed_over(sequence):
                    return sequence
        return None

    def begin(self, sequence: Sequence) -> None:
        """It waits no longer and runs."""
        self._now = max(self._now, min(tenant.level for tenant in self._tenants.values() if tenant.waiting))
        self._stop_waiting(sequence)
        self.join(sequence)

    def join(self, sequence: Sequence) -> None:
        """It runs, without having waited: a sample beside the one that ran the prompt."""
        self._tenant(sequence).running[sequence.name] = sequence

    def put_back(self, sequence: Sequence) -> None:
        """It ran and waits again, in its place by arrival, which is that of its request."""
        del self._tenant(sequence).running[sequence.name]
        self._wait(sequence)

    def got(self, sequence: Sequence, work: int) -> None:
        """Its tenant got so much."""
        self._tenant(sequence).got += work

    def level(self, sequence: Sequence) -> int:
        """What its tenant got, and what those that run will need for their prompts."""
        return self._tenant(sequence).level

    def youngest(self, tenant: str) -> Sequence | None:
        """Of those of a tenant that wait and never ran, the last in order."""
        return next(reversed(self._tenants[tenant].fresh), None)

    def end(self, sequence: Sequence, *, last: bool = True) -> None:
        """It is gone, and the request if it is the `last` of its samples. Of a tenant who has no other its level is kept as
        long as it is ahead of the rest.
        """
        tenant = self._tenant(sequence)
        if sequence.name in tenant.running:
            del tenant.running[sequence.name]
        else:
            self._stop_waiting(sequence)
        if last:
            del self._arrivals[sequence.request_id]
        if not self._arrivals:
            self._now = 0
        self._tenants = {name: each for name, each in self._tenants.items() if self._matters(each)}

    def _matters(self, tenant: _Tenant) -> bool:
        return bool(tenant.waiting or tenant.running or (self._arrivals and tenant.got > self._now))

    def _wait(self, sequence: Sequence) -> None:
        insort(self._tenant(sequence).waiting, self._entry(sequence))
        self._count(sequence)

    def _stop_waiting(self, sequence: Sequence) -> None:
        self._tenant(sequence).waiting.remove(self._entry(sequence))
        self._count(sequence)

    def _count(self, sequence: Sequence) -> None:
        name = sequence.request.tenant
        others = {tenant: count for tenant, count in self.fresh.items() if tenant != name}
        count = len(self._tenants[name].fresh)
        self.fresh = others | ({name: count} if count else {})

    def _entry(self, sequence: Sequence) -> _Entry:
        return -sequence.request.priority, self._arrivals[sequence.request_id], sequence.sample, sequence

    def _tenant(self, sequence: Sequence) -> _Tenant:
        return self._tenants[sequence.request.tenant]
