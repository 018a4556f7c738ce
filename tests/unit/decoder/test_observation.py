"""When an answer began, and that it never did, as the objective of first tokens counts it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from decoder_service.observation import Observer
from decoder_service.request import Delta
from vscan.errors import DeadlineExceeded, ResourceExhausted
from vscan.telemetry import names
from vscan.telemetry.names import Metric
from vscan.telemetry.providers import Telemetry

DELTA = Delta(sample=0, text="a", tokens=())


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def observer(reader: InMemoryMetricReader) -> Observer:
    return Observer(Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False)), model="m")


def points(reader: InMemoryMetricReader, metric: Metric) -> list[Any]:
    data = reader.get_metrics_data()
    found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    return [point for one in found if one.name == metric.name for point in one.data.data_points]


def test_a_first_token_counts_from_when_it_came_not_from_when_its_caller_took_it(
    observer: Observer, reader: InMemoryMetricReader
) -> None:
    with observer.watch("chat") as observation:
        observation.token_came(DELTA, time.perf_counter() + 100)  # no clock but that of its coming says so
    (point,) = points(reader, names.METRIC_TIME_TO_FIRST_TOKEN)
    assert point.sum >= 100


@pytest.mark.parametrize("end", [asyncio.CancelledError(), GeneratorExit(), DeadlineExceeded("late")], ids=repr)
def test_who_leaves_before_the_first_token_has_given_up(
    observer: Observer, reader: InMemoryMetricReader, end: BaseException
) -> None:
    with pytest.raises(type(end)), observer.watch("chat"):
        raise end
    (point,) = points(reader, names.METRIC_GIVEN_UP)
    assert point.count == 1
    assert point.attributes[names.ATTR_GEN_AI_OPERATION] == "chat"


def test_who_has_a_token_and_who_is_refused_has_not(observer: Observer, reader: InMemoryMetricReader) -> None:
    with suppress(asyncio.CancelledError), observer.watch("chat") as observation:
        observation.token_came(DELTA, time.perf_counter())
        raise asyncio.CancelledError
    with pytest.raises(ResourceExhausted), observer.watch("chat"):
        raise ResourceExhausted("full", retry_delay_ms=1)
    assert points(reader, names.METRIC_GIVEN_UP) == []
    assert sum(point.count for point in points(reader, names.METRIC_GEN_AI_REQUEST_DURATION)) == 2
