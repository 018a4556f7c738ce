"""Which endpoint a call goes to, and where it goes next when that one is busy or away. No I/O.

    balancer = Balancer(["10.0.0.1:7070", "10.0.0.2:7070"], affinity)
    route = Route(balancer, key)                   # one call
    with route.endpoint() as endpoint:             # counts as in flight there meanwhile
        send to it
        ├─ first event → route.succeeded()         # it is well
        └─ error       → route.failed(error)       # whether another one is left to be asked at once

An endpoint that is busy or away *rests*: all calls pass it over for a while, so that images move on without trying it first.
When its rest is over one call tries it again, and its images return once it is well. Where all rest, a call asks one of those
that are busy, or else one after the other, round by round, beginning with the one that will be tried again first: so a single
endpoint is always asked, one that has come back while it rested is found when the last of the others goes, and a fleet that is
full is not met with a multiple of its load, nor does it lose track of who has which image.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from random import Random

from vscan.errors import ResourceExhausted, Unavailable, VScanError
from vscan_client._affinity import rendezvous_order
from vscan_client.options import Affinity

NOBODY: Mapping[str, int] = {}
_MOST_DOUBLINGS = 30  # beyond that every bound is reached, and the numbers would only grow
# So many in a row that are all busy or away say enough of the others. Each further one would cost the caller a way there and
# its files, and a fleet of hundreds that is full as many refusals for each call.
_MOST_IN_A_ROUND = 8


@dataclass(slots=True)
class _State:
    """One endpoint, as this client knows it."""

    in_flight: int = 0
    failures: int = 0  # to be reached, since it last was; 0 of one that is well or busy
    rests_until: float = 0.0


class Balancer:
    """The endpoints of one service. Belongs to one event loop.

    A call goes to the first of its key's rendezvous order that is well and within its bound: consistent hashing with bounded
    loads (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350) over this client's own calls. With L calls in flight on n
    endpoints, the new one included, each takes at most ceil(load_factor × L / n), and `min_in_flight` in any case.

        load_factor 1.25, min_in_flight 1, n = 4    in flight  3 1 0 0    L = 5, bound 2: the first is passed over

    A call without a key goes to the endpoint with the fewest in flight.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        affinity: Affinity,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._affinity = affinity
        self._clock = clock
        self._random = random or Random()
        self._states = {endpoint: _State() for endpoint in endpoints}

    @property
    def endpoints(self) -> Collection[str]:
        """Those that are known now."""
        return self._states.keys()

    def update(self, endpoints: Iterable[str]) -> None:
        """Only these from now on. What is known of those that stay is kept."""
        self._states = {endpoint: self._states.get(endpoint) or _State() for endpoint in endpoints}

    def pick(self, key: str | None, tried: Collection[str], asked: Mapping[str, int] = NOBODY) -> str:
        """The endpoint for a call that was not well served by `tried`. There must be an endpoint.

        Args:
            asked: how often the call has asked each, in all its rounds: where all are away it takes turns.
        """
        candidates = self._well(tried) or self._reachable()
        if not candidates:
            return min(self._states, key=lambda endpoint: (asked.get(endpoint, 0), self._states[endpoint].rests_until))
        return self._least_loaded(candidates) if key is None else self._within_bound(rendezvous_order(candidates, key))

    def has_another(self, tried: Collection[str]) -> bool:
        """Whether an endpoint is well that was not tried."""
        return bool(self._well(tried))

    @contextmanager
    def in_flight(self, endpoint: str) -> Iterator[None]:
        """Around a call to it."""
        state = self._states[endpoint]
        if state.failures and self._is_well(state):
            self._rest(state)  # this call finds out; the others pass it over until then
        state.in_flight += 1
        try:
            yield
        finally:
            state.in_flight -= 1

    def succeeded(self, endpoint: str) -> None:
        """It is well."""
        if state := self._states.get(endpoint):
            state.failures, state.rests_until = 0, 0.0

    def failed(self, endpoint: str, error: VScanError) -> None:
        """It is left alone if `error` says that it is away, or busy: then as long as it asked, within the bound."""
        state = self._states.get(endpoint)
        if state is None:
            return
        if isinstance(error, ResourceExhausted):
            state.failures = 0
            self._rest_ms(state, min(error.retry_delay_ms, self._affinity.max_rest_ms))
        # Of many calls that break with one connection the first alone counts.
        elif isinstance(error, Unavailable) and (state.failures == 0 or self._is_well(state)):
            self._rest(state)

    def _rest(self, state: _State) -> None:
        doublings = min(state.failures, _MOST_DOUBLINGS)
        state.failures += 1
        self._rest_ms(state, min(self._affinity.max_rest_ms, self._affinity.rest_ms * 2**doublings))

    def _rest_ms(self, state: _State, duration_ms: float) -> None:
        state.rests_until = self._clock() + duration_ms / 1000

    def _well(self, tried: Collection[str]) -> list[str]:
        return [endpoint for endpoint, state in self._states.items() if endpoint not in tried and self._is_well(state)]

    def _is_well(self, state: _State) -> bool:
        return self._clock() >= state.rests_until

    def _reachable(self) -> list[str]:
        return [endpoint for endpoint, state in self._states.items() if state.failures == 0]

    def _least_loaded(self, candidates: list[str]) -> str:
        fewest = min(self._states[endpoint].in_flight for endpoint in candidates)
        return self._random.choice([endpoint for endpoint in candidates if self._states[endpoint].in_flight == fewest])

    def _within_bound(self, order: list[str]) -> str:
        calls = sum(state.in_flight for state in self._states.values()) + 1
        share = ceil(self._affinity.load_factor * calls / len(self._well(()) or order))
        bound = max(share, self._affinity.min_in_flight)
        # Where all that are left are at their bounds (others were tried, or are away) the first of them takes it.
        return next((endpoint for endpoint in order if self._states[endpoint].in_flight < bound), order[0])


class Route:
    """The way of one call over the endpoints, in rounds: each asks those that are well, once each, and no more than eight.

    Attributes:
        key: the request's affinity.
        server: the endpoint of the last try; empty before the first.
    """

    def __init__(self, balancer: Balancer, key: str | None) -> None:
        self.key = key
        self.server = ""
        self._balancer = balancer
        self._tried: set[str] = set()  # in this round
        self._asked: Counter[str] = Counter()  # in all rounds
        self._stays = False

    @contextmanager
    def endpoint(self) -> Iterator[str]:
        """Where the next try goes."""
        if not self._stays or self.server not in self._balancer.endpoints:
            self.server = self._balancer.pick(self.key, self._tried, self._asked)
            self._asked[self.server] += 1
        self._stays = False
        with self._balancer.in_flight(self.server):
            yield self.server

    def succeeded(self) -> None:
        """The last try was accepted."""
        self._balancer.succeeded(self.server)

    def stay(self) -> None:
        """The next try goes to the same endpoint: it asked for something that the call has."""
        self._stays = True

    def failed(self, error: VScanError) -> bool:
        """The last try failed. Whether another endpoint is left in this round, which may be asked at once."""
        if not self.server:
            return False  # it did not get as far as an endpoint
        self._balancer.failed(self.server, error)
        self._tried.add(self.server)
        return len(self._tried) < _MOST_IN_A_ROUND and self._balancer.has_another(self._tried)

    def begin_again(self) -> None:
        """The next round."""
        self._tried.clear()
