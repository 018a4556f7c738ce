"""A decoder: where it finds the tokens of images, and its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simpy import AllOf, AnyOf, Environment

from bench.capacity.curve import measured
from bench.capacity.profile import Profile
from bench.capacity.simulation.core import Core, Process
from bench.capacity.simulation.encoder import Encoder
from bench.capacity.simulation.engine import Engine
from bench.capacity.simulation.errors import Away, Busy, Missing
from bench.capacity.simulation.prefixes import Remembered
from bench.capacity.simulation.redis_store import RedisStore

_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4)  # before an encoder is asked again: `decoder_service/encoder_retries.py`


@dataclass(slots=True)
class Serving:
    """How a request was served. Times are of the simulation, seconds."""

    places: tuple[str, ...] = ()
    resolved_s: float = 0.0
    first_s: float | None = None
    started_s: float | None = None  # in the engine


class Decoder:
    """One replica, `name` being the address that clients know."""

    def __init__(
        self,
        env: Environment,
        name: str,
        profile: Profile,
        core: Core,
        redis: RedisStore,
        encoders: Sequence[Encoder],
        turn: int,
    ) -> None:
        costs, wire, cache = profile.decoder, profile.wire, profile.cache
        self.name, self.alive, self.core = name, True, core
        self.dies = env.event()
        self.device = core if costs.on_core else Core(env)
        self.engine = Engine(env, profile, self.device)
        self._env, self._redis, self._encoders, self._turn = env, redis, encoders, turn
        self._request_ms = measured(costs.request_ms, "a request's processor time (decoder.request_ms)")
        self._end_ms = measured(costs.end_ms, "a request's processor time at its end (decoder.end_ms)")
        self._encoded_ms = measured(costs.encoded_ms, "a question to the encoder (decoder.encoded_ms)")
        self._redis_ms = measured(costs.redis_ms, "what a find in Redis takes (decoder.redis_ms)")
        self._encoded_wire_s = measured(wire.encoded_ms, "the way to the encoder (wire.encoded_ms)") / 1e3
        self._redis_wire_s = measured(wire.redis_ms, "the way to Redis (wire.redis_ms)") / 1e3
        value_bytes = measured(cache.value_bytes, "an image's bytes in memory (cache.value_bytes)")
        self._memory = Remembered(cache.memory_bytes // value_bytes)

    def serve(
        self, serving: Serving, images: tuple[int, ...], question_rows: int, tokens: int, whole: frozenset[int]
    ) -> Process:
        """A request, of whose images those of `whole` came as files. Raises Busy, Away or Missing."""
        yield self.core.work(self._request_ms)
        serving.places = yield from self._living(self._resolved(images, whole))
        serving.resolved_s = self._env.now
        job = self.engine.job(images, question_rows, tokens)
        self.engine.submit(job)
        yield AnyOf(self._env, [job.first, self.dies])
        if not self.alive:
            raise Away(self.name)
        serving.first_s, serving.started_s = self._env.now, job.began_s
        yield AnyOf(self._env, [job.last, self.dies])
        if not self.alive:
            raise Away(self.name)
        yield self.core.work(self._end_ms)

    def die(self) -> None:
        """All that it serves learn of it."""
        self.alive = False
        self.dies.succeed()

    def warm(self, images: tuple[int, ...]) -> None:
        """As after a question about them."""
        for image in images:
            self._memory.add(image, 1)
        self.engine.remember(images)

    def _living(self, steps: Process) -> Process:
        result = yield from steps
        if not self.alive:
            raise Away(self.name)
        return result

    def _resolved(self, images: tuple[int, ...], whole: frozenset[int]) -> Process:
        """Places of all, which are looked for at once; equal ones once."""
        distinct = list(dict.fromkeys(images))
        if len(distinct) == 1:
            place = yield from self._resolve(distinct[0], distinct[0] in whole)
            return (place,) * len(images)
        searches = [self._env.process(self._ended(self._resolve(image, image in whole))) for image in distinct]
        yield AllOf(self._env, searches)
        ends = {image: search.value for image, search in zip(distinct, searches, strict=True)}
        faults = [end for end in ends.values() if isinstance(end, Exception)]
        if faults:
            raise min(faults, key=lambda fault: isinstance(fault, Missing))
        return tuple(ends[image] for image in images)

    def _ended(self, search: Process) -> Process:
        """Its place, or why there is none."""
        try:
            return (yield from search)
        except (Busy, Away, Missing) as fault:
            return fault

    def _resolve(self, image: int, whole: bool) -> Process:
        if self._memory.find(image):
            return "memory"
        if (yield from self._redis.get(image)):
            yield self.core.work(self._redis_ms)
            yield self._env.timeout(self._redis_wire_s)
            place = "redis"
        elif not whole:
            raise Missing
        else:
            place = yield from self._asked(image)
        self._memory.add(image, 1)
        return place

    def _asked(self, image: int) -> Process:
        """Encoders in turn, and another one where one is away: as `encoder_retries` does. One that is full is the caller's."""
        yield self.core.work(self._encoded_ms)
        yield self._env.timeout(self._encoded_wire_s)
        for pause_s in (*_PAUSES_S, None):
            living = [encoder for encoder in self._encoders if encoder.alive]
            if living:
                self._turn += 1
                try:
                    return (yield from living[self._turn % len(living)].encode(image))
                except Away:
                    pass
            if pause_s is not None:
                yield self._env.timeout(pause_s)
        raise Away("no encoder")
