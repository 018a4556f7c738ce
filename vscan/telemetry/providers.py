"""What a process measures with: handed to constructors, so that nothing reads a global provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.metrics import Meter, MeterProvider, NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider, Tracer, TracerProvider

from vscan.telemetry.names import TRACER


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where spans and metrics go. `Telemetry()` sends them nowhere."""

    tracer_provider: TracerProvider = field(default_factory=NoOpTracerProvider)
    meter_provider: MeterProvider = field(default_factory=NoOpMeterProvider)
    on_shutdown: Callable[[], None] = _nothing

    @property
    def tracer(self) -> Tracer:
        """For the spans of `vscan.telemetry.names`."""
        return self.tracer_provider.get_tracer(TRACER)

    @property
    def meter(self) -> Meter:
        """For the metrics of `vscan.telemetry.names`; see `vscan.telemetry.metrics`."""
        return self.meter_provider.get_meter(TRACER)

    def shutdown(self) -> None:
        """Sends what is left and stops. Blocks for some seconds at most. To be called once, last."""
        self.on_shutdown()
