"""Which traces are recorded."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased

from vscan.rpc.handlers import is_polled


def service_sampler(ratio: float) -> Sampler:
    """Follows the caller's decision; of the traces begun here records a `ratio` (0 to 1) of those that are worth it."""
    return ParentBased(root=WithoutPolls(TraceIdRatioBased(ratio)))


class WithoutPolls(Sampler):  # type: ignore[misc]
    """Drops traces that consist of one poll (`Describe`, asked by services every few seconds). They still have a trace id."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **named: Any
    ) -> SamplingResult:
        """Decides about a root span by its name; the other sampler decides about the rest."""
        sampler = ALWAYS_OFF if is_polled(name) else self._other
        return sampler.should_sample(parent_context, trace_id, name, *args, **named)

    def get_description(self) -> str:
        """For the SDK's logs."""
        return f"WithoutPolls{{{self._other.get_description()}}}"
