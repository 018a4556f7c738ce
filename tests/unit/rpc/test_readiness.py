"""Whether a server is ready, as its metric says it."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from vscan.rpc.readiness import Readiness
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry


def test_the_whole_is_ready_while_every_service_is_and_no_worker_is_wedged() -> None:
    told: list[bool] = []
    readiness = Readiness(["a", "b"], told.append)
    readiness.set_ready("a", True)
    readiness.set_ready("b", True)
    readiness.set_wedged("the engine", True)
    readiness.set_wedged("the engine", False)
    readiness.set_ready("b", False, "its encoder does not fit")
    readiness.set_ready("b", True)
    readiness.stop()
    assert told == [False, True, False, True, False, True, False]


async def test_a_server_says_from_the_start_that_it_is_not_ready() -> None:
    reader = InMemoryMetricReader()

    def ready() -> float:
        data: Any = reader.get_metrics_data()
        metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
        ((point,),) = [metric.data.data_points for metric in metrics if metric.name == names.METRIC_READY.name]
        return float(point.value)

    telemetry = Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    server = RpcServer(RpcSettings(drain_seconds=0), services=["a"], telemetry=telemetry)
    assert ready() == 0
    await server.start()
    assert ready() == 0
    await server.set_ready("a", True)
    assert ready() == 1
    await server.stop()
    assert ready() == 0
