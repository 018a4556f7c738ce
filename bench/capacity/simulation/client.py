"""A client of many decoders: the SDK's own balancer, digests first, retries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from simpy import Environment

from bench.capacity.curve import measured
from bench.capacity.profile import Profile
from bench.capacity.simulation.asks import Ask, key_of
from bench.capacity.simulation.core import Core, Process
from bench.capacity.simulation.decoder import Decoder, Serving
from bench.capacity.simulation.errors import Away, Busy, Missing
from bench.capacity.simulation.remembered import Orders, RememberingBalancer
from vscan.errors import ResourceExhausted, Unavailable, VScanError
from vscan_client._balancer import Route
from vscan_client._retrying import RetryBudget, wait_seconds
from vscan_client.options import Affinity, Retry


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one question ended, each exactly once. Times are seconds of the simulation.

    `status` is "answered", "busy" (no decoder took it), "away" (none was reached) or "broken" (one died while it answered).
    """

    ask: Ask
    status: str
    end_s: float
    first_s: float | None = None
    started_s: float | None = None
    resolved_s: float | None = None
    places: tuple[str, ...] = ()
    server: str = ""
    attempts: int = 0
    files: int = 0  # sent, again where they were

    @property
    def first_token_ms(self) -> float:
        """From the question to its first token."""
        if self.first_s is None:
            raise ValueError("no token came")
        return (self.first_s - self.ask.at_s) * 1e3


class SimulatedClient:
    """One program with an SDK in it. `servers` are those that live, by address."""

    def __init__(
        self,
        env: Environment,
        profile: Profile,
        servers: Callable[[], Mapping[str, Decoder]],
        *,
        core: Core | None,
        orders: Orders,
        affinity: Affinity,
        digests: Sequence[bytes],
        seed: int,
    ) -> None:
        costs = profile.client
        self.sent: set[int] = set()  # images that the servers have been sent
        self.orders = orders
        self._env, self._servers, self._core = env, servers, core
        self._request_ms = measured(costs.request_ms, "a question's processor time (client.request_ms)")
        self._end_ms = measured(costs.end_ms, "an answer's processor time (client.end_ms)")
        self._token_ms = measured(costs.token_ms, "a token's processor time (client.token_ms)")
        self._wire_s = measured(profile.wire.hot_ms, "the way to the decoder (wire.hot_ms)") / 1e3
        self._file_s = measured(profile.wire.file_ms, "the way of a file (wire.file_ms)") / 1e3
        self._affinity, self._retry, self._draw = affinity, Retry(), Random(seed)
        self._budget = RetryBudget(self._retry.budget)
        self._digests, self._looked_s = digests, 0.0
        self._balancer = RememberingBalancer(servers(), affinity, clock=lambda: env.now, random=self._draw)
        self._balancer.orders = orders

    def ask(self, ask: Ask) -> Process:
        """One question to its end."""
        yield from self._computes(self._request_ms)
        route, failures, attempts, files = Route(self._balancer, key_of(ask.images, self._digests)), 0, 0, 0
        whole = frozenset(ask.images) - self.sent
        while True:
            self._look_again(self._affinity.refresh_s)
            serving = Serving()
            attempts += 1
            files += len(whole)
            try:
                with route.endpoint() as name:
                    yield from self._served(name, serving, ask, whole)
                route.succeeded()
                self.sent.update(ask.images)
                self._budget.earn()
                return self._outcome("answered", ask, serving, name, attempts, files)
            except Missing:
                route.stay()
                whole = frozenset(ask.images)
                continue
            except (Busy, Away) as fault:
                error, status = _error(fault), "busy" if isinstance(fault, Busy) else "away"
                if serving.first_s is not None:
                    return self._outcome("broken", ask, serving, name, attempts, files)
                if status == "away":
                    self._look_again(0.0)
                if route.failed(error):
                    continue
            failures += 1
            if failures >= self._retry.attempts or not self._budget.spend():
                return self._outcome(status, ask, serving, route.server, attempts, files)
            yield self._env.timeout(wait_seconds(self._retry, failures, error, self._draw))
            route.begin_again()

    def _served(self, name: str, serving: Serving, ask: Ask, whole: frozenset[int]) -> Process:
        yield self._env.timeout(self._wire_s + self._file_s * len(whole))
        decoder = self._servers().get(name)
        if decoder is None:
            raise Away(name)
        yield from decoder.serve(serving, ask.images, ask.question_rows, ask.answer_tokens, whole)
        yield from self._computes(self._end_ms + self._token_ms * (ask.answer_tokens - 1))

    def _computes(self, duration_ms: float) -> Process:
        """On the client's core, if the simulation has one for it; else it takes just so long."""
        if self._core is None:
            yield self._env.timeout(duration_ms / 1e3)
        else:
            yield self._core.work(duration_ms)

    def _look_again(self, after_s: float) -> None:
        if self._env.now - self._looked_s >= after_s:
            self._looked_s = self._env.now
            self._balancer.update(self._servers())

    def _outcome(self, status: str, ask: Ask, serving: Serving, server: str, attempts: int, files: int) -> Outcome:
        first, started, resolved = serving.first_s, serving.started_s, serving.resolved_s
        return Outcome(ask, status, self._env.now, first, started, resolved, serving.places, server, attempts, files)


def _error(fault: Busy | Away) -> VScanError:
    if isinstance(fault, Busy):
        return ResourceExhausted("busy", retry_delay_ms=fault.retry_ms)
    return Unavailable("away")
