"""An encoder: single flight, lease, one image decoded at a time, device passes over what has gathered."""

from __future__ import annotations

from collections import deque
from random import Random

from simpy import Environment, Event, Resource

from bench.capacity.curve import NotMeasured, curve_at, measured
from bench.capacity.profile import Profile
from bench.capacity.simulation.core import Core, Process
from bench.capacity.simulation.errors import Away, Busy
from bench.capacity.simulation.redis_store import RedisStore

# A waiter for another replica's encoding asks again after 4 ms, then less often: `encoder_service/cache/replica_turns.py`.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.004, 0.1, 1.5
_RETRY_MS = 1000


class Encoder:
    """One replica. Events of `encode` are the places where tokens were found: "encoded" or "shared"."""

    def __init__(
        self, env: Environment, profile: Profile, core: Core, redis: RedisStore, *, pixels: float, draw: Random
    ) -> None:
        costs = profile.encoder
        self.alive = True
        self.passes = self.images = 0
        self.core = core
        self.device = core if costs.on_core else Core(env)
        self._env, self._redis, self._draw = env, redis, draw
        self._request_ms = measured(costs.request_ms, "an encoder's processor time for an image (encoder.request_ms)")
        self._end_ms = measured(costs.end_ms, "an encoder's processor time after an image (encoder.end_ms)")
        self._preprocess_ms = curve_at(costs.preprocess_ms, pixels, "decoding an image (encoder.preprocess_ms)")
        if costs.pass_ms is None:
            raise NotMeasured("a device pass (encoder.pass_ms)")
        self._pass_ms, self._tiles = costs.pass_ms, profile.tiles
        self._most = int(min(costs.max_batch_tiles, self._pass_ms.largest)) // profile.tiles
        if self._most < 1:
            raise NotMeasured(f"a device pass of {profile.tiles} tiles (encoder.pass_ms)")
        self._max_queue, self._waiting = costs.max_queue, 0
        self._flights: dict[int, Event] = {}
        self._turn = Resource(env, capacity=1)  # of the thread that decodes
        self._queue: deque[Event] = deque()
        self._comes = env.event()
        env.process(self._work())

    def encode(self, image: int) -> Process:
        """Makes its tokens, or waits for whoever makes them. Raises Busy, or Away if the encoder dies meanwhile."""
        flight = self._flights.get(image)
        shared = flight is not None
        if flight is None:
            flight = self._flights[image] = self._env.event()
            self._env.process(self._fly(image, flight))
        outcome = yield flight
        if isinstance(outcome, Exception):
            raise outcome
        return "shared" if shared else outcome

    def die(self) -> None:
        """All that wait for it are told."""
        self.alive = False
        for flight in self._flights.values():
            if not flight.triggered:
                flight.succeed(Away("the encoder is gone"))
        self._flights.clear()

    def _fly(self, image: int, flight: Event) -> Process:
        try:
            outcome = yield from self._made(image)
        except Busy as error:
            outcome = error
        if not flight.triggered:
            flight.succeed(outcome)
        self._flights.pop(image, None)
        yield self.core.work(self._end_ms)

    def _made(self, image: int) -> Process:
        yield self.core.work(self._request_ms / 2)
        pause_s, waited = _FIRST_PAUSE_S, False
        while True:
            if (yield from self._redis.get(image)):
                return "shared" if waited else "redis"
            if self._redis.join(image, self):
                break
            waited = True
            yield self._env.timeout(pause_s * (0.5 + self._draw.random() / 2))
            pause_s = min(_LONGEST_PAUSE_S, pause_s * _GROWTH)
        if self._waiting >= self._max_queue:
            self._redis.release(image, self)
            raise Busy(_RETRY_MS)
        self._waiting += 1
        with self._turn.request() as turn:
            yield turn
            yield self.core.work(self._preprocess_ms)
        passed = self._env.event()
        self._queue.append(passed)
        if not self._comes.triggered:
            self._comes.succeed()
        yield passed
        if self.alive:
            yield self.core.work(self._request_ms / 2)
            yield from self._redis.put(image, self)
        return "encoded"

    def _work(self) -> Process:
        while self.alive:
            if not self._queue:
                self._comes = self._env.event()
                yield self._comes
            batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            self._waiting -= len(batch)
            self.passes += 1
            self.images += len(batch)
            yield self.device.work(self._pass_ms.at(len(batch) * self._tiles))
            for passed in batch:
                passed.succeed()
