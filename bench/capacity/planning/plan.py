"""The plan: replicas of each kind, what binds them, Redis and the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from bench.capacity.curve import measured
from bench.capacity.demand import Demand
from bench.capacity.planning.decoders import DecoderLoad, DecoderModel
from bench.capacity.planning.encoders import EncoderLoad, EncoderModel
from bench.capacity.profile import Profile
from bench.capacity.queueing import Way, quantile_ms

MOST_REPLICAS = 100_000
_FIRST_TOKEN, _COMPUTE, _KV, _PLACES = "first token", "compute", "KV memory", "places in the batch"
_REDIS_BUSY = 0.5
_QUANTILE = 0.95
_MBIT = 8 / 1e6


@dataclass(frozen=True, slots=True)
class Kind:
    """Replicas of one kind: those that are needed, and with the spare ones; and what made it so many."""

    needed: int
    planned: int
    bound: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes and bytes a second are of all replicas together; loads are of the busiest replica with none away."""

    encoders: Kind
    decoders: Kind
    encoder: EncoderLoad
    decoder: DecoderLoad
    first_token_p95_ms: float
    redis_bytes: float
    redis_images: float
    redis_busy: float  # of one core of a server
    redis_servers: int  # that share it, each at most half busy
    kv_bytes: float  # of one decoder: requests under way
    memory_share: float  # of repeated images that a decoder still has in its memory tier, if all are asked about alike
    network_mbit: Mapping[str, float]


def plan(profile: Profile, demand: Demand) -> Plan:
    """Raises NotMeasured where a figure lacks, ValueError where no number of replicas reaches the goal."""
    profile = demand.fitted(profile)
    encoding, decoding = EncoderModel(profile, demand.pixels), DecoderModel(profile, demand)
    planner = _Planner(profile, demand, encoding, decoding)
    encoders, decoders = planner.replicas()
    return planner.plan(encoders, decoders)


class _Planner:
    def __init__(self, profile: Profile, demand: Demand, encoding: EncoderModel, decoding: DecoderModel) -> None:
        self._profile, self._demand, self._encoding, self._decoding = profile, demand, encoding, decoding
        decoding.least_ms()  # raises where no request fits

    def replicas(self) -> tuple[Kind, Kind]:
        """First as many as the utilisation asks for; then, while the goal is missed, more of the kind that brings more."""
        encoders = _fewest(self._encoders_suffice)
        decoders = _fewest(self._decoders_suffice)
        by_load = encoders, decoders
        while self._first_ms(encoders, decoders) > self._demand.target_ms:
            more_e, more_d = encoders + max(1, encoders // 20), decoders + max(1, decoders // 20)
            with_e, with_d = self._first_ms(more_e, decoders), self._first_ms(encoders, more_d)
            if min(with_e, with_d) >= self._first_ms(encoders, decoders) - 1e-3 or max(more_e, more_d) > MOST_REPLICAS:
                reached = self._first_ms(encoders, decoders)
                raise ValueError(
                    f"--target-ttft-p95-ms: {self._demand.target_ms:g} is below what any number of replicas reaches, "
                    f"about {reached:.0f} ms"
                )
            encoders, decoders = (more_e, decoders) if with_e < with_d else (encoders, more_d)
        spare = self._demand.spare
        return (
            Kind(encoders, encoders + spare, _FIRST_TOKEN if encoders > by_load[0] else _COMPUTE),
            Kind(decoders, decoders + spare, self._decoder_bound(decoders, by_load[1])),
        )

    def plan(self, encoders: Kind, decoders: Kind) -> Plan:
        """Everything else."""
        demand, cache = self._demand, self._profile.cache
        images = demand.distinct_images
        if images is None:
            images = max(1.0, demand.new_images_per_second * demand.ttl_s)
        share = min(1.0, decoders.needed * cache.memory_bytes / (images * measured(cache.value_bytes, "cache.value_bytes")))
        finds = demand.requests_per_second * demand.images * demand.repeat_rate * (1 - share)
        reads = demand.requests_per_second * demand.images * (1 - demand.repeat_rate * share) + demand.new_images_per_second
        redis_ms = reads * measured(cache.get_ms, "cache.get_ms")
        redis_ms += demand.new_images_per_second * measured(cache.put_ms, "cache.put_ms")
        load = self._decoder_load(decoders.planned)
        return Plan(
            encoders=encoders,
            decoders=decoders,
            encoder=self._encoder_load(encoders.planned),
            decoder=load,
            first_token_p95_ms=self._first_ms(encoders.needed, decoders.needed),
            redis_bytes=images * measured(cache.redis_bytes, "an entry in Redis (cache.redis_bytes)"),
            redis_images=images,
            redis_busy=redis_ms / 1e3,
            redis_servers=max(1, ceil(redis_ms / 1e3 / _REDIS_BUSY)),
            kv_bytes=max(1.0, load.answers) * self._decoding.request_pages * self._decoding.page_bytes,
            memory_share=share,
            network_mbit=self._network(finds),
        )

    def _network(self, finds: float) -> dict[str, float]:
        demand, wire, cache = self._demand, self._profile.wire, self._profile.cache
        new, file_bytes = demand.new_images_per_second, demand.bytes_of_file(self._profile)
        entry = measured(cache.entry_bytes, "an entry's bytes (cache.entry_bytes)")
        question = measured(wire.question_bytes, "a question's bytes (wire.question_bytes)")
        token = measured(wire.token_bytes, "a token's bytes (wire.token_bytes)")
        per_second = {
            "client to decoder": demand.requests_per_second * question + new * file_bytes,
            "decoder to client": demand.requests_per_second * demand.answer_tokens * token,
            "decoder to encoder": new * file_bytes,
            "encoder to decoder": new * measured(wire.reply_bytes, "a reply's bytes (wire.reply_bytes)"),
            "encoder to Redis": new * entry,
            "Redis to decoder": finds * entry,
        }
        return {name: bytes_a_second * _MBIT for name, bytes_a_second in per_second.items()}

    def _encoder_load(self, count: int) -> EncoderLoad:
        return self._encoding.load(self._demand.new_images_per_second / count)

    def _decoder_load(self, count: int) -> DecoderLoad:
        busiest = self._demand.imbalance if count > 1 else 1.0
        return self._decoding.load(self._demand.requests_per_second * min(1.0, busiest / count))

    def _encoders_suffice(self, count: int) -> bool:
        return self._encoder_load(count).utilisation <= self._demand.utilisation

    def _decoders_suffice(self, count: int) -> bool:
        load = self._decoder_load(count)
        return (
            load.utilisation <= self._demand.utilisation and load.answers <= self._demand.utilisation * self._decoding.running
        )

    def _decoder_bound(self, count: int, by_load: int) -> str:
        """What one fewer would not have; memory wherever it lets fewer answers run than the batch has places."""
        if self._decoding.by_memory < self._profile.decoder.max_running:
            return _KV
        if count > by_load:
            return _FIRST_TOKEN
        try:
            load = self._decoder_load(count - 1) if count > 1 else None
        except ValueError:
            return _COMPUTE
        return _PLACES if load is not None and load.utilisation <= self._demand.utilisation else _COMPUTE

    def _first_ms(self, encoders: int, decoders: int) -> float:
        """The 95th percentile over requests with new images, which are slower, and without."""
        new, load = 1 - self._demand.repeat_rate**self._demand.images, self._decoder_load(decoders)
        ways = [Way(1 - new, load.hot_ms, (load.room, load.step))]
        if new:
            encoder, costs, wire = self._encoder_load(encoders), self._profile.decoder, self._profile.wire
            way_ms = measured(costs.encoded_ms, "decoder.encoded_ms") + measured(wire.encoded_ms, "wire.encoded_ms")
            way_ms += measured(wire.file_ms, "wire.file_ms")
            least_ms = load.hot_ms + load.cold_further_ms + way_ms + encoder.alone_ms
            ways.append(Way(new, least_ms, (load.room, load.step, encoder.wait)))
        return quantile_ms(ways, _QUANTILE)


def _fewest(suffices: Callable[[int], bool]) -> int:
    """The least count that does. Raises ValueError where `MOST_REPLICAS` do not."""

    def does(count: int) -> bool:
        try:
            return suffices(count)
        except ValueError:
            return False

    high = 1
    while not does(high):
        high *= 2
        if high > MOST_REPLICAS:
            raise ValueError(f"more than {MOST_REPLICAS} replicas would be needed")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle, high)
    return high
