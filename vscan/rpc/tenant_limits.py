"""What one tenant may ask for: calls in a second (a token bucket) and calls at once. No torch.

    bucket of 3, 2 a second      ●●●  call  ●●○  call  ●○○  call  ○○○  refused: "come back in 500 ms"   0.5 s later  ●○○

A refused call costs nothing: neither a token nor a place. So who asks too often still gets what the rate allows, and who is
refused for its places finds its tokens when one is free. What is refused later (a bad request) has cost its token.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from vscan.errors import ResourceExhausted
from vscan.rpc.handlers import AroundInterceptor, Call
from vscan.rpc.identities import Identities, TenantLimit
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant import DEFAULT_TENANT, current_caller
from vscan.telemetry.metrics import AdmissionMetrics

_PLACE_RETRY_DELAY_MS = 200  # how long a call lasts nobody knows
_LONGEST_WAIT_SECONDS = 3600.0  # told to a caller; one a day, or as little as a float can say, is a rate too
_ROUNDING = 1e-9  # who waits as long as it was told is not sent away for the last bit


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant may have, decided; None is no bound."""

    requests_per_second: float | None
    burst: int  # of a bucket; read only where there is a rate
    max_concurrent_calls: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not let in, and when to come back."""

    reason: str  # "rate" or "concurrency"
    message: str
    retry_delay_ms: int


@dataclass(slots=True)
class _State:
    """Of one tenant. A new one has a full bucket, however large that is."""

    tokens: float = math.inf
    at_s: float = 0.0
    running: int = 0


class TenantAllowances:
    """Whose calls may come and what each tenant may have: the settings, and above them the file that holds now."""

    def __init__(self, settings: RpcSettings, identities: Callable[[], Identities | None]) -> None:
        self._identities = identities
        self._rate = settings.tenant_requests_per_second
        self._burst = settings.tenant_burst
        self._concurrent = settings.tenant_max_concurrent_calls
        if self._concurrent is None and settings.identities_file is not None:
            self._concurrent = max(1, settings.max_concurrent_calls // 2)  # no tenant alone can fill the service

    def of(self, tenant: str) -> Allowance:
        """What this tenant may have."""
        identities = self._identities()
        own = TenantLimit() if identities is None else identities.limits.get(tenant, TenantLimit())
        rate = own.requests_per_second or self._rate
        return Allowance(
            requests_per_second=rate,
            burst=own.burst or self._burst or max(1, math.ceil(rate or 1)),
            max_concurrent_calls=own.max_concurrent_calls or self._concurrent,
        )

    def tenants(self) -> Collection[str]:
        """Those that are limited here."""
        identities = self._identities()
        return (DEFAULT_TENANT,) if identities is None else identities.tenants


class Allowances(Protocol):
    """What `TenantCounts` is told by."""

    def of(self, tenant: str) -> Allowance:
        """What this tenant may have."""

    def tenants(self) -> Collection[str]:
        """Those that are limited here."""


class TenantCounts:
    """Counts what tenants have. Belongs to one event loop; bounded, since tenants come from the file alone."""

    def __init__(self, allowances: Allowances, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowances = allowances
        self._clock = clock
        self._states: dict[str, _State] = {}

    @property
    def running(self) -> Mapping[str, int]:
        """By tenant: the calls being served."""
        return {tenant: state.running for tenant, state in self._states.items() if state.running}

    @property
    def remembered(self) -> int:
        """Tenants that something is known of."""
        return len(self._states)

    def enter(self, tenant: str) -> Refusal | None:
        """A call wants to begin: lets it in, until `leave`, or says why not."""
        allowance = self._allowances.of(tenant)
        state = self._states.get(tenant) or self._new(tenant)
        most = allowance.max_concurrent_calls
        if most is not None and state.running >= most:
            return Refusal("concurrency", f"{most} calls of this tenant are being served already", _PLACE_RETRY_DELAY_MS)
        refusal = self._take(state, allowance)
        if refusal is None:
            state.running += 1
        return refusal

    def leave(self, tenant: str) -> None:
        """A call that was let in has ended."""
        self._states[tenant].running -= 1

    def _take(self, state: _State, allowance: Allowance) -> Refusal | None:
        rate = allowance.requests_per_second
        if rate is None:
            return None
        now_s = self._clock()
        state.tokens, state.at_s = min(allowance.burst, state.tokens + (now_s - state.at_s) * rate), now_s
        if state.tokens < 1 - _ROUNDING:
            wait_ms = max(1, math.ceil(min((1 - state.tokens) / rate, _LONGEST_WAIT_SECONDS) * 1000))
            return Refusal("rate", f"this tenant has used up its {rate:g} requests a second", wait_ms)
        state.tokens -= 1
        return None

    def _new(self, tenant: str) -> _State:
        known = self._allowances.tenants()
        if len(self._states) >= len(known):  # of tenants that have left the file nothing is kept beyond their last call
            self._states = {name: state for name, state in self._states.items() if name in known or state.running}
        return self._states.setdefault(tenant, _State())


class TenantLimits(AroundInterceptor):
    """Holds each call to the limits of its tenant, until its last reply.

    A caller that speaks for tenants is held to none: it is a decoder, which has let these calls in by the tenants' own limits.
    Held to them here again a question with several images would cost several times, and be refused half done; and the calls by
    which it learns whether its encoder lives are no tenant's.
    """

    def __init__(self, counts: TenantCounts, metrics: AdmissionMetrics) -> None:
        self._counts = counts
        self._metrics = metrics

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Holds a place of the tenant's."""
        caller = current_caller()
        if caller.speaks_for_tenants:
            yield
            return
        if refusal := self._counts.enter(caller.tenant):
            self._metrics.refused(call.method, refusal.reason, tenant=caller.tenant)
            raise ResourceExhausted(refusal.message, retry_delay_ms=refusal.retry_delay_ms)
        try:
            yield
        finally:
            self._counts.leave(caller.tenant)
