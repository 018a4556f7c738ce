"""The instruments of `vscan.telemetry.names`, grouped by who measures with them; the decoder's are in `decoder_metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.metrics import Counter, Histogram, Meter, UpDownCounter

from vscan.telemetry import names
from vscan.telemetry.names import Kind, Metric


def counter(meter: Meter, metric: Metric) -> Counter:
    """What only grows."""
    _check(metric, Kind.COUNTER)
    return meter.create_counter(metric.name, unit=metric.unit, description=metric.description)


def up_down(meter: Meter, metric: Metric) -> UpDownCounter:
    """What there is now, told by differences."""
    _check(metric, Kind.UP_DOWN)
    return meter.create_up_down_counter(metric.name, unit=metric.unit, description=metric.description)


def histogram(meter: Meter, metric: Metric) -> Histogram:
    """A distribution, with the metric's bounds."""
    _check(metric, Kind.HISTOGRAM)
    return meter.create_histogram(
        metric.name, unit=metric.unit, description=metric.description, explicit_bucket_boundaries_advisory=metric.bounds
    )


def gauge(meter: Meter, metric: Metric) -> Any:
    """The last value; `.set(value, attributes)`."""
    _check(metric, Kind.GAUGE)
    return meter.create_gauge(metric.name, unit=metric.unit, description=metric.description)


MAKERS: Mapping[Kind, Callable[[Meter, Metric], Any]] = {
    Kind.COUNTER: counter,
    Kind.UP_DOWN: up_down,
    Kind.HISTOGRAM: histogram,
    Kind.GAUGE: gauge,
}


def _check(metric: Metric, kind: Kind) -> None:
    if metric.kind is not kind:
        raise TypeError(f"{metric.name} is a {metric.kind.value}, not a {kind.value}")


class ReadyMetrics:
    """Whether the service is ready: not, at first."""

    def __init__(self, meter: Meter) -> None:
        self._ready = gauge(meter, names.METRIC_READY)
        self.ready(False)

    def ready(self, ready: bool) -> None:
        """It is, or not, from now on."""
        self._ready.set(int(ready))


class CertificateMetrics:
    """The server's certificate."""

    def __init__(self, meter: Meter) -> None:
        self._expiry = gauge(meter, names.METRIC_CERTIFICATE_EXPIRY)

    def ends(self, end_s: float) -> None:
        """The one that is shown ends then, in seconds since 1970."""
        self._expiry.set(end_s)


class RpcMetrics:
    """Calls by method and status. Measured by the interceptors."""

    def __init__(self, meter: Meter) -> None:
        self._requests = counter(meter, names.METRIC_REQUESTS)
        self._duration = histogram(meter, names.METRIC_REQUEST_DURATION)
        self._running = up_down(meter, names.METRIC_RUNNING_REQUESTS)

    def began(self, method: str) -> None:
        """A call arrived."""
        self._running.add(1, {names.ATTR_RPC_METHOD: method})

    def ended(self, method: str, status: str, duration_ms: float) -> None:
        """A call ended, with gRPC's name of its status."""
        self._running.add(-1, {names.ATTR_RPC_METHOD: method})
        attributes = {names.ATTR_RPC_METHOD: method, names.ATTR_STATUS: status}
        self._requests.add(1, attributes)
        self._duration.record(duration_ms, attributes)


class AdmissionMetrics:
    """Calls that were refused for who calls. Tenants are named: there are as many as the identities file has."""

    def __init__(self, meter: Meter) -> None:
        self._refusals = counter(meter, names.METRIC_REFUSALS)

    def refused(self, method: str, reason: str, *, tenant: str = "") -> None:
        """One call of a method: "unauthenticated", "not_allowed", or over its tenant's "rate" or "concurrency"."""
        attributes = {names.ATTR_RPC_METHOD: method, names.ATTR_REFUSAL: reason} | (
            {names.ATTR_TENANT: tenant} if tenant else {}
        )
        self._refusals.add(1, attributes)


class ProcessMetrics:
    """What a process holds, and how late its event loop is."""

    def __init__(self, meter: Meter) -> None:
        self._tasks = gauge(meter, names.METRIC_PROCESS_TASKS)
        self._threads = gauge(meter, names.METRIC_PROCESS_THREADS)
        self._descriptors = gauge(meter, names.METRIC_PROCESS_DESCRIPTORS)
        self._lag = histogram(meter, names.METRIC_LOOP_LAG)

    def holds(self, *, tasks: int, threads: int, descriptors: int) -> None:
        """What there is now."""
        self._tasks.set(tasks)
        self._threads.set(threads)
        self._descriptors.set(descriptors)

    def lag(self, late_ms: float) -> None:
        """The loop came so late."""
        self._lag.record(late_ms)


class TokenMetrics:
    """Visual tokens before and after each stage."""

    def __init__(self, meter: Meter) -> None:
        self._before = histogram(meter, names.METRIC_VISUAL_TOKENS_BEFORE)
        self._after = histogram(meter, names.METRIC_VISUAL_TOKENS_AFTER)

    def record(self, stage: str, before: int, after: int) -> None:
        """One image through stage "encoder", or one prompt through stage "prune"."""
        attributes = {names.ATTR_STAGE: stage}
        self._before.record(before, attributes)
        self._after.record(after, attributes)


class CacheMetrics:
    """Lookups and writes of each tier."""

    def __init__(self, meter: Meter) -> None:
        self._lookups = counter(meter, names.METRIC_CACHE_LOOKUPS)
        self._writes = counter(meter, names.METRIC_CACHE_WRITES)
        self._rejected = counter(meter, names.METRIC_CACHE_REJECTED)
        self._operation = histogram(meter, names.METRIC_REDIS_OPERATION)
        self._errors = counter(meter, names.METRIC_REDIS_ERRORS)
        self._left_alone = gauge(meter, names.METRIC_REDIS_LEFT_ALONE)
        self._leases = counter(meter, names.METRIC_CACHE_LEASES)
        self._bytes = gauge(meter, names.METRIC_CACHE_BYTES)
        self._entries = gauge(meter, names.METRIC_CACHE_ENTRIES)

    def looked_up(self, tier: str, result: str, count: int = 1) -> None:
        """`count` keys were looked up in a tier ("memory", "redis"), all with one result (see `names.ATTR_CACHE_RESULT`)."""
        self._lookups.add(count, {names.ATTR_CACHE_TIER: tier, names.ATTR_CACHE_RESULT: result})

    def written(self, tier: str, result: str) -> None:
        """An entry was written ("ok") or not ("error", "skipped", "refused")."""
        self._writes.add(1, {names.ATTR_CACHE_TIER: tier, names.ATTR_CACHE_RESULT: result})

    def rejected(self, flaw: str) -> None:
        """A Redis entry was not to be trusted, for this reason (see `vscan.cache.entry.Flaw`)."""
        self._rejected.add(1, {names.ATTR_CACHE_FLAW: flaw})

    def asked(self, operation: str, duration_ms: float, error: str = "") -> None:
        """Redis was waited for so long, and answered, or an error of this class was all that came."""
        failure = {names.ATTR_ERROR_TYPE: error} if error else {}
        self._operation.record(duration_ms, {names.ATTR_REDIS_OPERATION: operation} | failure)

    def failed(self, operation: str, error: str) -> None:
        """A Redis operation failed with an error of this class."""
        self._errors.add(1, {names.ATTR_REDIS_OPERATION: operation, names.ATTR_ERROR_TYPE: error})

    def left_alone(self, access: str, away: bool) -> None:
        """The circuit breaker of "read" or "write" opened or closed."""
        self._left_alone.set(int(away), {names.ATTR_REDIS_ACCESS: access})

    def leased(self, outcome: str) -> None:
        """A replica's turn at encoding an image came out so (see `vscan.cache.recorder.LeaseOutcome`)."""
        self._leases.add(1, {names.ATTR_LEASE_OUTCOME: outcome})

    def holds(self, entries: int, size_bytes: int) -> None:
        """What the memory tier holds now."""
        self._entries.set(entries)
        self._bytes.set(size_bytes)


class EncoderMetrics:
    """The encoder's queue and batches."""

    def __init__(self, meter: Meter) -> None:
        self._queue_wait = histogram(meter, names.METRIC_ENCODER_QUEUE_WAIT)
        self._waiting = up_down(meter, names.METRIC_ENCODER_WAITING)
        self._capacity = gauge(meter, names.METRIC_ENCODER_QUEUE_CAPACITY)
        self._batch_images = histogram(meter, names.METRIC_ENCODER_BATCH_IMAGES)
        self._batch_tiles = histogram(meter, names.METRIC_ENCODER_BATCH_TILES)
        self._vit = histogram(meter, names.METRIC_ENCODER_VIT)
        self._pass = histogram(meter, names.METRIC_ENCODER_PASS)
        self._shared = counter(meter, names.METRIC_ENCODER_SHARED)
        self._shared.add(0)

    def queue(self, media: str, capacity: int) -> None:
        """There is a queue of so many places for "image" or "video", and nobody in it."""
        self._capacity.set(capacity, {names.ATTR_MEDIA: media})
        self.waiting(media, 0)

    def waiting(self, media: str, change: int) -> None:
        """Images or videos joined (+) or left (-) their queue."""
        self._waiting.add(change, {names.ATTR_MEDIA: media})

    def waited(self, queue_ms: float) -> None:
        """An image's wait ended in a batch."""
        self._queue_wait.record(queue_ms)

    def batch(self, *, images: int, tiles: int, vit_ms: float, pass_ms: float) -> None:
        """A device pass ended, of whose time no part was counted to another one."""
        self._batch_images.record(images)
        self._batch_tiles.record(tiles)
        self._vit.record(vit_ms)
        self._pass.record(pass_ms)

    def shared(self) -> None:
        """A request took the result of another one's encoding."""
        self._shared.add(1)
