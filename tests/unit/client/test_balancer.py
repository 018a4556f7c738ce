"""Which endpoint a call goes to, without I/O: bounds, and rests of those that are busy or away."""

from contextlib import ExitStack
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscan.errors import InternalError, InvalidArgument, ResourceExhausted, Unavailable
from vscan_client import Affinity
from vscan_client._affinity import rendezvous_order
from vscan_client._balancer import Balancer, Route

THREE = ["a:1", "b:1", "c:1"]
KEY = "00" * 16
AWAY = Unavailable("away")


class Clock:
    """Time that stands still until it is told to go on."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_balancer(clock: Clock, endpoints: list[str] = THREE, **affinity: float) -> Balancer:
    return Balancer(endpoints, Affinity(**{"rest_ms": 1000, "max_rest_ms": 4000, **affinity}), clock=clock, random=Random(0))  # type: ignore[arg-type]


def where(balancer: Balancer, key: str | None = KEY) -> str:
    with Route(balancer, key).endpoint() as endpoint:
        return endpoint


def fails(balancer: Balancer, error: Exception, endpoint: str) -> None:
    assert isinstance(error, Unavailable | ResourceExhausted | InternalError | InvalidArgument)
    balancer.failed(endpoint, error)


def test_calls_of_one_key_go_to_one_endpoint_one_after_the_other(clock: Clock) -> None:
    balancer = make_balancer(clock, min_in_flight=1)
    assert {where(balancer) for _ in range(20)} == {rendezvous_order(THREE, KEY)[0]}


def test_a_few_calls_at_once_stay_together(clock: Clock) -> None:
    balancer = make_balancer(clock, min_in_flight=4)
    home, second, _ = rendezvous_order(THREE, KEY)
    with ExitStack() as calls:
        taken = [calls.enter_context(Route(balancer, KEY).endpoint()) for _ in range(5)]
    assert taken == [home] * 4 + [second]


def test_calls_without_a_key_go_where_there_is_least_to_do(clock: Clock) -> None:
    balancer = make_balancer(clock)
    with ExitStack() as calls:
        taken = [calls.enter_context(Route(balancer, None).endpoint()) for _ in range(6)]
    assert sorted(taken) == sorted(THREE * 2)
    assert sorted(taken[:3]) == THREE


@given(
    st.integers(1, 6),
    st.floats(1, 3),
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60),
)
def test_no_endpoint_ever_has_more_than_its_bound(
    endpoints: int, factor: float, floor: int, steps: list[tuple[bool, int]]
) -> None:
    names = [f"e{number}" for number in range(endpoints)]
    balancer = make_balancer(Clock(), names, load_factor=factor, min_in_flight=floor)
    running: list[tuple[str, ExitStack]] = []
    for begins, number in steps:
        if begins or not running:
            call = ExitStack()
            endpoint = call.enter_context(Route(balancer, f"key {number}").endpoint())
            running.append((endpoint, call))
            most = max(floor, ceil(factor * len(running) / endpoints))
            assert sum(each == endpoint for each, _ in running) <= most
        else:
            running.pop(number % len(running))[1].close()


def test_one_that_is_away_is_left_alone_and_tried_again_by_one_call(clock: Clock) -> None:
    balancer = make_balancer(clock)
    home, second, _ = rendezvous_order(THREE, KEY)
    fails(balancer, AWAY, home)
    assert where(balancer) == second
    clock.seconds += 1
    with Route(balancer, KEY).endpoint() as first, Route(balancer, KEY).endpoint() as other:
        assert (first, other) == (home, second)
    clock.seconds += 1.9  # nobody said that it was well: it rests twice as long
    assert where(balancer) == second
    clock.seconds += 0.1
    assert where(balancer) == home


def test_the_rest_is_bounded_and_forgotten_once_it_is_well(clock: Clock) -> None:
    balancer = make_balancer(clock)
    home, second, _ = rendezvous_order(THREE, KEY)
    fails(balancer, AWAY, home)
    for _ in range(100):
        clock.seconds += 4
        assert where(balancer) == home
    assert where(balancer) == second
    balancer.succeeded(home)
    assert where(balancer) == home
    fails(balancer, AWAY, home)
    clock.seconds += 1
    assert where(balancer) == home


def test_many_calls_that_break_at_once_count_as_one(clock: Clock) -> None:
    balancer = make_balancer(clock)
    home = rendezvous_order(THREE, KEY)[0]
    for _ in range(50):
        fails(balancer, AWAY, home)
    clock.seconds += 1
    assert where(balancer) == home


def test_one_that_is_busy_is_left_alone_as_long_as_it_asked_within_the_bound(clock: Clock) -> None:
    balancer = make_balancer(clock)
    home, second, _ = rendezvous_order(THREE, KEY)
    fails(balancer, ResourceExhausted("full", retry_delay_ms=300), home)
    assert where(balancer) == second
    clock.seconds += 0.3
    assert [where(balancer), where(balancer)] == [home, home]
    fails(balancer, ResourceExhausted("full", retry_delay_ms=60_000), home)
    clock.seconds += 4
    assert where(balancer) == home


@pytest.mark.parametrize("error", [InternalError("oops"), InvalidArgument("x", "bad")])
def test_other_errors_are_the_calls_own(clock: Clock, error: Exception) -> None:
    balancer = make_balancer(clock)
    home = where(balancer)
    fails(balancer, error, home)
    assert where(balancer) == home


def test_where_all_are_busy_an_image_stays_at_home(clock: Clock) -> None:
    balancer = make_balancer(clock)
    for endpoint, delay_ms in zip(THREE, (900, 300, 600), strict=True):
        fails(balancer, ResourceExhausted("full", retry_delay_ms=delay_ms), endpoint)
    order = rendezvous_order(THREE, KEY)
    assert where(balancer) == order[0]
    assert where(balancer, None) in THREE
    fails(balancer, AWAY, order[0])
    assert where(balancer) == order[1]  # one that is busy may have room by now; one that is away has none


@pytest.mark.parametrize("key", [KEY, None])
def test_where_all_are_away_the_one_whose_rest_is_over_first_is_asked(clock: Clock, key: str | None) -> None:
    balancer = make_balancer(clock)
    for endpoint in ("b:1", "a:1", "c:1"):
        fails(balancer, AWAY, endpoint)
        clock.seconds += 0.1
    assert where(balancer, key) == "b:1"


def test_a_call_finds_one_that_came_back_while_it_rested(clock: Clock) -> None:
    """As in a rolling restart: the first was away for long and has come back, and then the second one goes."""
    balancer = make_balancer(clock, ["a:1", "b:1"])
    for _ in range(3):
        fails(balancer, AWAY, "a:1")
        clock.seconds += 1.5
    fails(balancer, AWAY, "a:1")
    route = Route(balancer, KEY)
    asked = []
    for _ in range(3):
        with route.endpoint() as endpoint:
            asked.append(endpoint)
        assert not route.failed(AWAY)
        route.begin_again()
    assert asked == ["b:1", "a:1", "b:1"]


def test_a_single_endpoint_is_always_asked(clock: Clock) -> None:
    balancer = make_balancer(clock, ["a:1"])
    route = Route(balancer, KEY)
    for _ in range(5):
        with route.endpoint() as endpoint:
            assert endpoint == "a:1"
        assert not route.failed(AWAY)
        route.begin_again()


def test_a_round_asks_each_that_is_well_once_in_order(clock: Clock) -> None:
    balancer = make_balancer(clock)
    route, asked, others = Route(balancer, KEY), [], True
    while others:
        with route.endpoint() as endpoint:
            asked.append(endpoint)
        others = route.failed(InternalError("oops"))
    assert asked == rendezvous_order(THREE, KEY)
    route.begin_again()
    with route.endpoint() as endpoint:
        assert endpoint == asked[0]


def test_a_round_through_a_large_fleet_that_is_full_ends_after_eight_and_the_next_asks_others(clock: Clock) -> None:
    fleet = [f"10.0.0.{number}:7070" for number in range(700)]
    balancer = make_balancer(clock, fleet)
    route, asked = Route(balancer, KEY), list[str]()
    for _ in range(2):
        others = True
        while others:
            with route.endpoint() as endpoint:
                asked.append(endpoint)
            others = route.failed(ResourceExhausted("full", retry_delay_ms=2000))
        route.begin_again()
    assert asked == rendezvous_order(fleet, KEY)[:16]


def test_endpoints_come_and_go_and_those_that_stay_keep_what_is_known(clock: Clock) -> None:
    balancer = make_balancer(clock)
    home, second, _ = rendezvous_order(THREE, KEY)
    fails(balancer, AWAY, home)
    balancer.update([home, second])
    assert where(balancer) == second
    with Route(balancer, KEY).endpoint():
        balancer.update([home])  # while a call goes on at the one that left
    assert where(balancer) == home
    balancer.succeeded(second)
    fails(balancer, AWAY, second)
    balancer.update([second])
    assert where(balancer) == second


@pytest.mark.parametrize(
    "bad", [{"load_factor": 0.9}, {"min_in_flight": 0}, {"rest_ms": -1}, {"rest_ms": 2, "max_rest_ms": 1}, {"refresh_s": 0}]
)
def test_settings_are_bounded(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Affinity(**bad)  # type: ignore[arg-type]
