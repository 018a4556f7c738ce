"""Rates and places of tenants, without a wire."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vscan.rpc.identities import Identities, TenantLimit
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant import Caller
from vscan.rpc.tenant_limits import Allowance, TenantAllowances, TenantCounts


@dataclass
class Clock:
    """Stands still unless it is moved."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Told:
    """Allowances by tenant, which a test may change."""

    by_tenant: dict[str, Allowance] = field(default_factory=dict)

    def of(self, tenant: str) -> Allowance:
        return self.by_tenant.get(tenant, Allowance(None, 1, None))

    def tenants(self) -> Collection[str]:
        return self.by_tenant.keys()


def counts_of(clock: Clock, **by_tenant: Allowance) -> TenantCounts:
    return TenantCounts(Told(dict(by_tenant)), clock)


def test_a_full_bucket_then_the_rate() -> None:
    clock = Clock()
    counts = counts_of(clock, a=Allowance(2.0, 3, None))
    assert [counts.enter("a") for _ in range(3)] == [None, None, None]
    refusal = counts.enter("a")
    assert refusal is not None
    assert (refusal.reason, refusal.retry_delay_ms) == ("rate", 500)
    clock.now_s += 0.25
    again = counts.enter("a")
    assert again is not None
    assert again.retry_delay_ms == 250  # the refused one has cost nothing
    clock.now_s += 0.25
    assert counts.enter("a") is None
    clock.now_s += 1000
    assert [counts.enter("a") is None for _ in range(4)] == [True, True, True, False]  # no more than the bucket holds


@given(st.floats(0.01, 1000), st.integers(1, 50), st.floats(0, 1e9))
def test_who_waits_as_long_as_it_was_told_is_let_in(rate: float, burst: int, start_s: float) -> None:
    clock = Clock(start_s)
    counts = counts_of(clock, a=Allowance(rate, burst, None))
    for _ in range(burst):
        assert counts.enter("a") is None
    for _ in range(5):
        while (refusal := counts.enter("a")) is None:
            pass  # whole milliseconds may have filled in more than one token
        clock.now_s += refusal.retry_delay_ms / 1000 + 1e-6  # of a large clock the last bits are lost
        assert counts.enter("a") is None


def test_of_the_smallest_rate_a_delay_is_told() -> None:
    """What is waited for is more than a float, or a duration of protobuf, can say."""
    counts = counts_of(Clock(), a=Allowance(5e-324, 1, None))
    assert counts.enter("a") is None
    refusal = counts.enter("a")
    assert refusal is not None
    assert refusal.retry_delay_ms == 3_600_000


def test_a_refusal_for_places_costs_no_token_and_one_for_tokens_no_place() -> None:
    clock = Clock()
    counts = counts_of(clock, a=Allowance(1.0, 2, 1))
    assert counts.enter("a") is None
    for _ in range(5):
        refusal = counts.enter("a")
        assert refusal is not None
        assert refusal.reason == "concurrency"
        assert refusal.retry_delay_ms > 0
    counts.leave("a")
    assert counts.enter("a") is None  # the second token was still there
    counts.leave("a")
    for _ in range(5):
        refusal = counts.enter("a")
        assert refusal is not None
        assert refusal.reason == "rate"
    assert counts.running == {}


def test_tenants_do_not_count_for_each_other() -> None:
    counts = counts_of(Clock(), a=Allowance(1.0, 1, 1), b=Allowance(1.0, 1, 1))
    assert [counts.enter(tenant) is None for tenant in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_tenant_that_left_the_file_is_forgotten_after_its_last_call() -> None:
    told = Told({"a": Allowance(None, 1, 5), "b": Allowance(None, 1, 5)})
    counts = TenantCounts(told, Clock())
    assert counts.enter("a") is None
    assert counts.enter("b") is None
    counts.leave("b")
    told.by_tenant = {"c": Allowance(None, 1, 5), "d": Allowance(None, 1, 5)}
    assert counts.enter("c") is None
    assert counts.running == {"a": 1, "c": 1}
    assert counts.remembered == 2
    counts.leave("a")
    assert counts.enter("d") is None
    assert counts.remembered == 2


def test_a_smaller_bucket_holds_at_once_and_a_larger_one_fills() -> None:
    told = Told({"a": Allowance(1.0, 10, None)})
    clock = Clock()
    counts = TenantCounts(told, clock)
    assert counts.enter("a") is None
    told.by_tenant["a"] = Allowance(1.0, 2, None)
    assert [counts.enter("a") is None for _ in range(3)] == [True, True, False]
    told.by_tenant["a"] = Allowance(1.0, 10, None)
    assert counts.enter("a") is not None


class Interleavings(RuleBasedStateMachine):
    """Calls of three tenants begin and end in any order, while time goes on and limits change: no count is ever wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.told = Told({name: Allowance(5.0, 3, 2) for name in "abc"})
        self.counts = TenantCounts(self.told, self.clock)
        self.running = dict.fromkeys("abc", 0)

    @rule(tenant=st.sampled_from("abc"))
    def begin(self, tenant: str) -> None:
        most = self.told.of(tenant).max_concurrent_calls
        refusal = self.counts.enter(tenant)
        full = most is not None and self.running[tenant] >= most
        assert full == (refusal is not None and refusal.reason == "concurrency")
        self.running[tenant] += refusal is None

    @rule(tenant=st.sampled_from("abc"))
    def end(self, tenant: str) -> None:
        if self.running[tenant]:
            self.counts.leave(tenant)
            self.running[tenant] -= 1

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(tenant=st.sampled_from("abc"), most=st.none() | st.integers(1, 4), rate=st.none() | st.floats(0.1, 10))
    def change(self, tenant: str, most: int | None, rate: float | None) -> None:
        self.told.by_tenant[tenant] = Allowance(rate, 3, most)

    @rule(tenant=st.sampled_from("abc"))
    def take_out(self, tenant: str) -> None:
        self.told.by_tenant.pop(tenant, None)

    @invariant()
    def counted(self) -> None:
        assert self.counts.running == {tenant: count for tenant, count in self.running.items() if count}
        assert self.counts.remembered <= 3


TestInterleavings = Interleavings.TestCase


def identities(**limits: TenantLimit) -> Identities:
    return Identities({b"x": Caller("shop")}, {}, limits)


@pytest.mark.parametrize(
    ("settings", "own", "allowed"),
    [
        ({}, TenantLimit(), Allowance(None, 1, 128)),
        ({"max_concurrent_calls": 1}, TenantLimit(), Allowance(None, 1, 1)),
        ({"tenant_requests_per_second": 2.5}, TenantLimit(), Allowance(2.5, 3, 128)),
        ({"tenant_requests_per_second": 2.5, "tenant_burst": 9}, TenantLimit(burst=4), Allowance(2.5, 4, 128)),
        ({"tenant_requests_per_second": 0.1}, TenantLimit(7.0, None, 3), Allowance(7.0, 7, 3)),
        ({"tenant_max_concurrent_calls": 5}, TenantLimit(), Allowance(None, 1, 5)),
    ],
)
def test_the_file_stands_above_the_settings(settings: dict[str, Any], own: TenantLimit, allowed: Allowance) -> None:
    found = TenantAllowances(RpcSettings(identities_file=Path("x"), **settings), lambda: identities(shop=own))
    assert found.of("shop") == allowed
    assert set(found.tenants()) == {"default", "shop"}


def test_without_a_file_one_tenant_may_fill_the_service() -> None:
    allowances = TenantAllowances(RpcSettings(), lambda: None)
    assert allowances.of("default") == Allowance(None, 1, None)
    assert set(allowances.tenants()) == {"default"}
