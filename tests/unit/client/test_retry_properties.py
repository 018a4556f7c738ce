"""What holds of every call, whatever its tries come to: over a transport that answers by a drawn script."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vscan.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    MissingImages,
    ResourceExhausted,
    Unavailable,
    VScanError,
)
from vscan_client import Affinity, Image, Retry, Timeout
from vscan_client._balancer import Balancer, Route
from vscan_client._core import Core, Exchange

CAT, DOG = Image.from_bytes(b"cat"), Image.from_bytes(b"dog")
DEADLINE_S = 10.0
RETRYABLE = (Unavailable, ResourceExhausted)

errors = st.one_of(
    st.builds(Unavailable, st.just("away")),
    st.builds(ResourceExhausted, st.just("full"), retry_delay_ms=st.integers(0, 4000)),
    st.builds(MissingImages, st.lists(st.sampled_from([CAT.sha256, DOG.sha256]), max_size=2, unique=True)),
    st.sampled_from([InvalidArgument("x", "bad"), InternalError("oops"), DeadlineExceeded("late"), Cancelled("gave up")]),
)
# Each try: how long it takes, whether an event came before its end, and the error that it ends with (None: an answer).
tries = st.lists(st.tuples(st.floats(0, 4), st.booleans(), st.none() | errors), min_size=40, max_size=40)


class Clock:
    """Time that goes on as it is told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Caller:
    """A client whose transport plays a script."""

    def __init__(self, clock: Clock, endpoints: int, retry: Retry) -> None:
        self.clock, self.retry = clock, retry
        self.core = Core(timeout=Timeout(total=DEADLINE_S), retry=retry, remembered_images=8, clock=clock, random=Random(0))
        self.balancer = Balancer([f"{number}:1" for number in range(endpoints)], Affinity(), clock=clock, random=Random(0))
        self.waits = 0

    def call(self, script: Sequence[tuple[float, bool, VScanError | None]]) -> list[VScanError | None]:
        """One call, to its end: how each of its tries ended."""
        exchange = self.core.exchange(Route(self.balancer, "key"), [CAT, DOG], None, None)
        began_s, ended = self.clock.seconds, list[VScanError | None]()
        for took_s, event_came, error in script:
            try:
                with exchange.route.endpoint():
                    left_s = exchange.sending(1)
                    assert left_s is not None
                    assert 0 < left_s <= DEADLINE_S - (self.clock.seconds - began_s) + 1e-9
                    self.clock.seconds += min(took_s, left_s)
            except DeadlineExceeded:
                return ended
            ended.append(error)
            if event_came or error is None:
                exchange.accepted()
            if error is None or not self._goes_on(exchange, error):
                return ended
        raise AssertionError("a call without an end")

    def _goes_on(self, exchange: Exchange, error: VScanError) -> bool:
        try:
            wait_s = exchange.failed(error)
        except type(error):
            return False
        self.waits += wait_s > 0 or (isinstance(error, RETRYABLE) and not exchange.route._tried)
        self.clock.seconds += wait_s
        return True


@given(st.lists(tries, min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 6), st.integers(0, 4))
def test_a_call_ends_within_its_bounds(
    scripts: list[list[tuple[float, bool, VScanError | None]]], endpoints: int, attempts: int, budget: int
) -> None:
    clock = Clock()
    caller = Caller(clock, endpoints, Retry(attempts=attempts, budget=budget))
    answers = 0
    for script in scripts:
        began_s, before = clock.seconds, caller.waits
        ended = caller.call(script)
        assert clock.seconds - began_s <= DEADLINE_S + 1e-6
        # Nothing follows an event, an answer, or an error that another try cannot help.
        followed = list(zip(script, ended, strict=False))[:-1]
        assert all(not event and isinstance(error, (*RETRYABLE, MissingImages)) for (_, event, error), _ in followed)
        # Two digests may be asked for whole, once each; a round asks each endpoint once.
        assert len(ended) <= attempts * endpoints + 2
        assert caller.waits - before <= attempts - 1
        answers += any(event or error is None for (_, event, error), _ in zip(script, ended, strict=False))
    assert caller.waits <= budget + answers / 10
