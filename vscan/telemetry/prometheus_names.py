"""What Prometheus calls a metric: the exporter's rules, so that rules, dashboards and manifests can be checked by name.

vscan.encoder.queue_wait, ms, histogram  ──▶  vscan_encoder_queue_wait_milliseconds_bucket, …_sum, …_count
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vscan.telemetry.names import Kind, Metric

_UNITS: Mapping[str, str] = {"ms": "milliseconds", "s": "seconds", "By": "bytes", "1": ""}
_HISTOGRAM = ("_bucket", "_sum", "_count")


def family_name(metric: Metric) -> str:
    """The name with its unit, without what the kind adds: `vscan_encoder_queue_wait_milliseconds`.

    Raises ValueError: a unit that no metric has had so far.
    """
    name, unit = label_name(metric.name), _unit(metric.unit)
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def series_names(metric: Metric) -> frozenset[str]:
    """The names of all samples of it: one, or the three of a histogram."""
    name = family_name(metric)
    if metric.kind is Kind.HISTOGRAM:
        return frozenset(name + suffix for suffix in _HISTOGRAM)
    return frozenset({f"{name}_total"} if metric.kind is Kind.COUNTER else {name})


def label_name(name: str) -> str:
    """A metric's or an attribute's name as Prometheus can spell it: `rpc.method` is `rpc_method`."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", name)


def _unit(unit: str) -> str:
    if unit.startswith("{"):  # counts things, which the name says
        return ""
    if unit not in _UNITS:
        raise ValueError(f"{unit}: say in `_UNITS` what Prometheus calls this unit")
    return _UNITS[unit]
