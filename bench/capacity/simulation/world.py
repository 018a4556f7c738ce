"""A deployment: clients, decoders, Redis and encoders, what is asked of them, and what changes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from simpy import AnyOf, Environment

from bench.capacity.curve import measured
from bench.capacity.profile import Profile
from bench.capacity.simulation.asks import MOST_ASKS, Ask, key_of
from bench.capacity.simulation.client import Outcome, SimulatedClient
from bench.capacity.simulation.core import Core, Process
from bench.capacity.simulation.decoder import Decoder
from bench.capacity.simulation.encoder import Encoder
from bench.capacity.simulation.redis_store import RedisStore
from bench.capacity.simulation.remembered import Orders
from vscan_client.options import Affinity


@dataclass(frozen=True, slots=True)
class Change:
    """So many replicas come or go. `kind` is "decoder" or "encoder", a negative `count` kills the oldest ones."""

    at_s: float
    kind: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is simulated.

    Attributes:
        on_two_cores: decoders share one core, and encoders, Redis and clients another, as in the validation; else each
            replica has its own, and clients take their time elsewhere.
        redis_bytes: its `maxmemory`; None for no bound.
        addresses, digests: together they decide which image is at home where.
    """

    decoders: int
    encoders: int
    pixels: float
    clients: int = 1
    ttl_s: float = 86_400.0
    lease_s: float = 5.0
    redis_bytes: float | None = None
    redis_servers: int = 1
    on_two_cores: bool = False
    affinity: Affinity = field(default_factory=Affinity)
    addresses: Sequence[str] = ()  # of the first decoders; else made up
    digests: Sequence[bytes] = ()  # of the first images; else made up
    changes: Sequence[Change] = ()


class TooLate(Exception):
    """A run was given up."""


@dataclass(frozen=True, slots=True)
class Limit:
    """When a run is given up: more than `most` requests have no first token within `late_ms`."""

    late_ms: float
    most: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it. `busy` are shares of the time, by kind the mean and the largest."""

    outcomes: Sequence[Outcome]
    seconds: float  # of the simulation, to the end of the last question
    ran_s: float  # that simulating took
    events: int
    passes: int
    images_encoded: int
    redis_reads: int
    redis_writes: int
    redis_entries: int
    redis_evicted: int
    prompts: int
    hot_prompts: int
    busy: Mapping[str, tuple[float, float]]


class World:
    """One run. The same deployment, questions and seed give the same outcomes."""

    def __init__(self, profile: Profile, deployment: Deployment, seed: int = 0) -> None:
        self.env = Environment()
        self._profile, self._deployment, self._draw = profile, deployment, Random(seed)
        self._cores = (Core(self.env), Core(self.env)) if deployment.on_two_cores else None
        cache = profile.cache
        capacity = None
        if deployment.redis_bytes is not None:
            capacity = max(
                1, int(deployment.redis_bytes // measured(cache.redis_bytes, "an entry in Redis (cache.redis_bytes)"))
            )
        self.redis = RedisStore(
            *([self._cores[1]] if self._cores else [Core(self.env) for _ in range(deployment.redis_servers)]),
            ttl_s=deployment.ttl_s,
            lease_s=deployment.lease_s,
            capacity=capacity,
            get_ms=measured(cache.get_ms, "a read of Redis (cache.get_ms)"),
            put_ms=measured(cache.put_ms, "a write of Redis (cache.put_ms)"),
            draw=self._draw,
        )
        self.encoders: list[Encoder] = []
        self.all_decoders: list[Decoder] = []
        self.living: dict[str, Decoder] = {}
        self._outcomes: list[Outcome] = []
        self._limit: Limit | None = None
        self._late, self._given_up = 0, self.env.event()
        self._add("encoder", deployment.encoders)
        self._add("decoder", deployment.decoders)
        self.clients = self._made_clients()

    def run(self, asks: Iterable[Ask], limit: Limit | None = None) -> Simulated:
        """Asks them all, to the end of the last one.

        Raises:
            ValueError: more than `MOST_ASKS`.
            TooLate: more than the limit allows are late or not answered; the rest is not simulated.
        """
        began = time.perf_counter()
        waiting = list(asks)
        if len(waiting) > MOST_ASKS:
            raise ValueError(f"at most {MOST_ASKS} requests are simulated, not {len(waiting)}")
        for change in self._deployment.changes:
            self.env.process(self._change(change))
        self._limit = limit
        self.env.run(AnyOf(self.env, [self.env.process(self._all(waiting)), self._given_up]))
        if self._given_up.triggered:
            raise TooLate(f"more than {limit.most if limit else 0} are late")
        if len(self._outcomes) != len(waiting):
            raise RuntimeError(f"{len(waiting)} questions and {len(self._outcomes)} ends")
        return self._simulated(time.perf_counter() - began)

    def warm(self, images: Iterable[int]) -> None:
        """As after one question about each: in Redis, known to all clients, and with the decoder where it is at home."""
        orders = self.clients[0].orders
        for image in images:
            self.redis.write(image, self.env.now)
            key = key_of((image,), self._deployment.digests) or ""
            self.living[orders.home(self.living, key)].warm((image,))
            for client in self.clients:
                client.sent.add(image)

    def _all(self, asks: Sequence[Ask]) -> Process:
        under_way = []
        for ask in asks:
            if ask.at_s > self.env.now:
                yield self.env.timeout(ask.at_s - self.env.now)
            under_way.append(self.env.process(self._one(ask)))
        for process in under_way:
            if not process.processed:
                yield process

    def _one(self, ask: Ask) -> Process:
        outcome = yield from self.clients[ask.client % len(self.clients)].ask(ask)
        self._outcomes.append(outcome)
        limit = self._limit
        if limit and (outcome.status != "answered" or outcome.first_token_ms > limit.late_ms):
            self._late += 1
            if self._late > limit.most and not self._given_up.triggered:
                self._given_up.succeed()

    def _made_clients(self) -> list[SimulatedClient]:
        orders = Orders()
        core = self._cores[1] if self._cores else None
        return [
            SimulatedClient(
                self.env,
                self._profile,
                lambda: self.living,
                core=core,
                orders=orders,
                affinity=self._deployment.affinity,
                digests=self._deployment.digests,
                seed=self._draw.randrange(2**32),
            )
            for _ in range(self._deployment.clients)
        ]

    def _change(self, change: Change) -> Process:
        yield self.env.timeout(change.at_s)
        if change.count > 0:
            self._add(change.kind, change.count)
            return
        for _ in range(-change.count):
            if change.kind == "decoder":
                self.living.pop(next(iter(self.living))).die()
            else:
                next(encoder for encoder in self.encoders if encoder.alive).die()

    def _add(self, kind: str, count: int) -> None:
        for _ in range(count):
            if kind == "encoder":
                core = self._cores[1] if self._cores else Core(self.env)
                pixels, draw = self._deployment.pixels, self._draw
                self.encoders.append(Encoder(self.env, self._profile, core, self.redis, pixels=pixels, draw=draw))
                continue
            core = self._cores[0] if self._cores else Core(self.env)
            number = len(self.all_decoders)
            named = self._deployment.addresses
            name = named[number] if number < len(named) else f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:7070"
            decoder = Decoder(self.env, name, self._profile, core, self.redis, self.encoders, self._draw.randrange(2**16))
            self.all_decoders.append(decoder)
            self.living[name] = decoder

    def _simulated(self, ran_s: float) -> Simulated:
        seconds, engines = float(self.env.now), [decoder.engine for decoder in self.all_decoders]
        redis = self.redis
        return Simulated(
            outcomes=sorted(self._outcomes, key=lambda outcome: outcome.ask.at_s),
            seconds=seconds,
            ran_s=ran_s,
            events=next(self.env._eid),
            passes=sum(encoder.passes for encoder in self.encoders),
            images_encoded=sum(encoder.images for encoder in self.encoders),
            redis_reads=redis.reads,
            redis_writes=redis.writes,
            redis_entries=len(redis),
            redis_evicted=redis.evicted,
            prompts=sum(engine.prompts for engine in engines),
            hot_prompts=sum(engine.hot_prompts for engine in engines),
            busy={
                "decoder": _busy([decoder.device for decoder in self.all_decoders], seconds),
                "encoder": _busy([encoder.device for encoder in self.encoders], seconds),
                "redis": _busy(redis.cores, seconds),
            },
        )


def _busy(cores: Sequence[Core], seconds: float) -> tuple[float, float]:
    shares = [core.busy_s / seconds for core in cores] if seconds else [0.0]
    return (sum(shares) / len(shares), max(shares)) if shares else (0.0, 0.0)
