"""The services' metrics take what the caches tell."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from vscan.cache.recorder import CacheRecorder, CountingRecorder, Outcome, Tier
from vscan.telemetry import names
from vscan.telemetry.metrics import CacheMetrics


def tell(recorder: CacheRecorder) -> None:
    recorder.looked_up(Tier.REDIS, Outcome.BAD_ENTRY, 2)
    recorder.written(Tier.MEMORY, Outcome.OK)
    recorder.holds(3, 4096)
    recorder.rejected("tag")
    recorder.asked("get", 2.5)
    recorder.asked("get", 250.0, "TimeoutError")
    recorder.failed("get", "TimeoutError")


def test_metrics_are_a_recorder() -> None:
    reader = InMemoryMetricReader()
    tell(CacheMetrics(MeterProvider(metric_readers=[reader]).get_meter("test")))
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        metric.name: [(getattr(point, "value", None) or point.sum, dict(point.attributes)) for point in metric.data.data_points]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert points == {
        names.METRIC_CACHE_LOOKUPS.name: [(2, {names.ATTR_CACHE_TIER: "redis", names.ATTR_CACHE_RESULT: "bad_entry"})],
        names.METRIC_CACHE_WRITES.name: [(1, {names.ATTR_CACHE_TIER: "memory", names.ATTR_CACHE_RESULT: "ok"})],
        names.METRIC_CACHE_ENTRIES.name: [(3, {})],
        names.METRIC_CACHE_BYTES.name: [(4096, {})],
        names.METRIC_CACHE_REJECTED.name: [(1, {names.ATTR_CACHE_FLAW: "tag"})],
        names.METRIC_REDIS_OPERATION.name: [
            (2.5, {names.ATTR_REDIS_OPERATION: "get"}),
            (250.0, {names.ATTR_REDIS_OPERATION: "get", names.ATTR_ERROR_TYPE: "TimeoutError"}),
        ],
        names.METRIC_REDIS_ERRORS.name: [(1, {names.ATTR_REDIS_OPERATION: "get", names.ATTR_ERROR_TYPE: "TimeoutError"})],
    }


def test_counts_in_the_process_are_the_same() -> None:
    counts = CountingRecorder()
    tell(counts)
    assert counts.lookups == {("redis", "bad_entry"): 2}
    assert counts.writes == {("memory", "ok"): 1}
    assert counts.memory == (3, 4096)
    assert counts.operations == {("get", ""): 1, ("get", "TimeoutError"): 1}
    assert (counts.flaws, counts.errors) == ({"tag": 1}, {("get", "TimeoutError"): 1})
