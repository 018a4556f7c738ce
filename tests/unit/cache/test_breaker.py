"""The breaker opens after faults in a row, lets one probe through a pause, and closes on a success."""

from __future__ import annotations

from vscan.cache.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(faults=3, pause_seconds=2.0, clock=clock)


def opened(clock: Clock) -> CircuitBreaker:
    one = breaker(clock)
    assert [one.failed() for _ in range(3)] == [False, False, True]
    return one


def test_a_success_between_faults_keeps_it_closed() -> None:
    one = breaker(Clock())
    for _ in range(5):
        one.failed()
        one.failed()
        assert one.allows()
        assert not one.succeeded()
    assert not one.is_open


def test_open_it_refuses_until_the_pause_is_over() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 1.99
    assert not one.allows()
    clock.now += 0.01
    assert one.allows()


def test_one_probe_a_pause() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.0
    assert [one.allows() for _ in range(4)] == [True, False, False, False]


def test_a_probe_that_succeeds_closes_it() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.0
    assert one.allows()
    assert one.succeeded()
    assert all(one.allows() for _ in range(4))


def test_a_probe_that_fails_begins_a_new_pause() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.5
    assert one.allows()
    assert not one.failed()  # it was open already
    clock.now += 1.99
    assert not one.allows()
    clock.now += 0.01
    assert one.allows()


def test_a_probe_that_never_reports_costs_one_pause() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.0
    assert one.allows()
    clock.now += 2.0
    assert one.allows()


def test_a_neighbours_faults_count_until_it_succeeds() -> None:
    one = breaker(Clock())
    assert [one.failed("neighbour") for _ in range(3)] == [False, False, True]
    assert one.forgive("neighbour")
    assert one.allows()
    assert not one.is_open


def test_a_neighbours_success_says_nothing_of_ones_own_faults() -> None:
    one = breaker(Clock())
    assert [one.failed(), one.failed("neighbour"), one.failed("neighbour"), one.failed()] == [False, False, True, False]
    assert one.forgive("neighbour")
    assert one.failed()
    assert not one.forgive("neighbour")
    assert one.is_open
    assert one.succeeded()


def test_closed_again_it_takes_as_many_faults_as_before() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.0
    one.allows()
    one.succeeded()
    assert [one.failed() for _ in range(3)] == [False, False, True]
