"""The plan: replicas of each kind, what binds them, Redis and the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from bench.capacity.curve import measured
from bench.capacity.demand import Demand
from bench.capacity.planning.decoders import DecoderLoad, DecoderModel
from bench.capacity.planning.encoders import EncoderLoad, EncoderModel
from bench.capacity.planning.network import on_the_wire
from bench.capacity.profile import Profile
from bench.capacity.queueing import Way, quantile_ms

MOST_REPLICAS = 100_000
_FIRST_TOKEN, _COMPUTE, _KV, _PLACES = "first token", "compute", "KV memory", "places in the batch"
_ONE, _BATCHES = "at least one", "compute, in batches no larger than were measured"
_REDIS_BUSY = 0.5
_QUANTILE = 0.95
_HEADROOM = 1.25  # of Redis' `maxmemory` over its entries: leases, clients' buffers, and entries larger than those measured
_PLENTY = 1 << 50  # bytes of KV memory that bind nothing
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
    redis_maxmemory: float  # of each server
    redis_images: float
    redis_busy: float  # of one core of a server
    redis_servers: int  # that share it, each at most half busy
    kv_bytes: float  # of one decoder: requests under way
    memory_share: float  # of repeated images that a decoder still has in its memory tier, if all are asked about alike
    prefix_share: float  # and whose rows are in its KV cache
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
        encoders = self._trimmed(encoders, by_load[0], lambda count: self._first_ms(count, decoders))
        decoders = self._trimmed(decoders, by_load[1], lambda count: self._first_ms(encoders, count))
        spare = self._demand.spare
        return (
            Kind(encoders, encoders + spare, _FIRST_TOKEN if encoders > by_load[0] else _COMPUTE if encoders > 1 else _ONE),
            Kind(decoders, decoders + spare, self._decoder_bound(encoders, decoders, by_load[1])),
        )

    def _trimmed(self, count: int, least: int, first_ms: Callable[[int], float]) -> int:
        """Those that the last large step brought too many of."""
        while count > least and first_ms(count - 1) <= self._demand.target_ms:
            count -= 1
        return count

    def plan(self, encoders: Kind, decoders: Kind) -> Plan:
        """Everything else."""
        demand, cache = self._demand, self._profile.cache
        images, share = demand.images_within_ttl, self._in_memory(decoders.needed)
        finds = demand.requests_per_second * demand.images * demand.repeat_rate * (1 - share)
        reads = demand.requests_per_second * demand.images * (1 - demand.repeat_rate * share) + demand.new_images_per_second
        redis_ms = reads * measured(cache.get_ms, "cache.get_ms")
        redis_ms += demand.new_images_per_second * measured(cache.put_ms, "cache.put_ms")
        load, servers = self._decoder_load(decoders.planned), max(1, ceil(redis_ms / 1e3 / _REDIS_BUSY))
        redis_bytes = images * measured(cache.redis_bytes, "an entry in Redis (cache.redis_bytes)")
        return Plan(
            encoders=encoders,
            decoders=decoders,
            encoder=self._encoder_load(encoders.planned),
            decoder=load,
            first_token_p95_ms=self._first_ms(encoders.needed, decoders.needed),
            redis_bytes=redis_bytes,
            redis_maxmemory=_HEADROOM * redis_bytes / servers,
            redis_images=images,
            redis_busy=redis_ms / 1e3,
            redis_servers=servers,
            kv_bytes=max(1.0, load.answers) * self._decoding.request_pages * self._decoding.page_bytes,
            memory_share=share,
            prefix_share=self._kept(decoders.needed),
            network_mbit=self._network(finds),
        )

    def _network(self, finds: float) -> dict[str, float]:
        demand, wire, cache = self._demand, self._profile.wire, self._profile.cache
        new, file_bytes = demand.new_images_per_second, demand.bytes_of_file(self._profile)
        entry = measured(cache.entry_bytes, "an entry's bytes (cache.entry_bytes)")
        question = measured(wire.question_bytes, "a question's bytes (wire.question_bytes)")
        token = measured(wire.token_bytes, "a token's bytes (wire.token_bytes)")
        per_second = {
            "client to decoder": demand.requests_per_second * on_the_wire(question) + new * on_the_wire(file_bytes),
            "decoder to client": demand.requests_per_second * demand.answer_tokens * on_the_wire(token),
            "decoder to encoder": new * on_the_wire(file_bytes),
            "encoder to decoder": new * on_the_wire(measured(wire.reply_bytes, "a reply's bytes (wire.reply_bytes)")),
            "encoder to Redis": new * on_the_wire(entry),
            "Redis to decoder": finds * on_the_wire(entry),
        }
        return {name: bytes_a_second * _MBIT for name, bytes_a_second in per_second.items()}

    def _encoder_load(self, count: int) -> EncoderLoad:
        together = ceil(self._demand.new_images / count) or 1
        return self._encoding.load(self._demand.new_images_per_second / count, together)

    def _decoder_load(self, count: int) -> DecoderLoad:
        return self._loaded(self._decoding, count)

    def _loaded(self, model: DecoderModel, count: int) -> DecoderLoad:
        busiest = self._demand.imbalance if count > 1 else 1.0
        per_second = self._demand.requests_per_second * min(1.0, busiest / count)
        return model.load(per_second, self._kept(count), self._in_memory(count))

    def _kept(self, count: int) -> float:
        return min(1.0, count * self._decoding.prefixes / self._demand.images_of_repeats)

    def _in_memory(self, count: int) -> float:
        cache = self._profile.cache
        value_bytes = measured(cache.value_bytes, "an image's bytes in memory (cache.value_bytes)")
        return min(1.0, count * cache.memory_bytes / value_bytes / self._demand.images_of_repeats)

    def _encoders_suffice(self, count: int) -> bool:
        return self._encoder_load(count).utilisation <= self._demand.utilisation

    def _decoders_suffice(self, count: int) -> bool:
        return self._suffices(self._decoding, count)

    def _suffices(self, model: DecoderModel, count: int) -> bool:
        load = self._loaded(model, count)
        return load.utilisation <= self._demand.utilisation and load.answers <= self._demand.utilisation * model.running

    def _decoder_bound(self, encoders: int, count: int, by_load: int) -> str:
        """What one fewer would not have."""
        if count == 1:
            return _ONE
        if self._reaches_with_plenty(encoders, count - 1):
            return _KV
        if count > by_load:
            return _FIRST_TOKEN
        if self._decoding.running < min(self._decoding.by_memory, self._profile.decoder.max_running):
            return _BATCHES
        try:
            return _COMPUTE if self._decoder_load(count - 1).utilisation > self._demand.utilisation else _PLACES
        except ValueError:
            return _COMPUTE

    def _reaches_with_plenty(self, encoders: int, decoders: int) -> bool:
        """Whether so many would do if more answers fitted the KV cache; as many prefixes as now."""
        costs = self._profile.decoder
        kv = costs.kv.model_copy(update={"cache_bytes": _PLENTY})
        plenty = self._profile.model_copy(update={"decoder": costs.model_copy(update={"kv": kv})})
        model = DecoderModel(plenty, self._demand)
        try:
            if not self._suffices(model, decoders):
                return False
            return self._first_ms(encoders, decoders, self._loaded(model, decoders)) <= self._demand.target_ms
        except ValueError:
            return False

    def _first_ms(self, encoders: int, decoders: int, load: DecoderLoad | None = None) -> float:
        """The 95th percentile over requests with new images, which are slower, and with known ones, wherever these are."""
        demand, load = self._demand, load or self._decoder_load(decoders)
        kept = self._kept(decoders) if demand.images == 1 else 0.0
        known, waits = 1 - demand.new_share, (load.room, load.step)
        # Prefixes are larger than tokens: whose prefix is kept, has its tokens in memory, too, but for what is under way.
        from_redis = min(1 - self._in_memory(decoders), 1 - kept)
        cold_ms = load.hot_ms + load.cold_further_ms
        ways = [
            Way(known * kept, load.hot_ms, waits),
            Way(known * (1 - kept - from_redis), cold_ms, waits),
            Way(known * from_redis, cold_ms + load.redis_further_ms, waits),
        ]
        if demand.new_share:
            encoder, costs, wire = self._encoder_load(encoders), self._profile.decoder, self._profile.wire
            asked_ms = measured(costs.encoded_ms, "decoder.encoded_ms") + measured(wire.file_ms, "wire.file_ms")
            way_ms = demand.new_images * asked_ms + measured(wire.encoded_ms, "wire.encoded_ms")
            ways.append(Way(demand.new_share, cold_ms + way_ms + encoder.alone_ms, (*waits, encoder.wait)))
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
            raise ValueError(f"--requests-per-second: more than {MOST_REPLICAS} replicas would be needed")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle, high)
    return high
