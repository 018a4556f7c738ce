"""When a request waited, was prefilled, pruned and decoded: durations for its result, spans for its trace."""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from decoder_service.request import EngineRequest, FinishReason, LayerPruning, Result
from decoder_service.runner.runner import PromptReport, PruneTime
from vscan.telemetry import names

_NS_PER_MS = 1_000_000


class StepTime:
    """From the making of this value to `end`, on both clocks."""

    def __init__(self) -> None:
        self.start_ns = self.end_ns = time.time_ns()
        self.start_s = self.end_s = time.perf_counter()

    def end(self) -> None:
        """The step is over."""
        self.end_s = time.perf_counter()
        self.end_ns = self.start_ns + round((self.end_s - self.start_s) * 1e9)


class RequestTimes:
    """Of one request; owned by the engine's thread. `accepted_s` is on the clock of `time.perf_counter`."""

    def __init__(self, request: EngineRequest, tracer: Tracer, *, accepted_s: float) -> None:
        self._request = request
        self._tracer = tracer
        self._accepted_s = accepted_s
        self._prompt_step: StepTime | None = None
        self._report = PromptReport((), (), ())

    def prefilled(self, step: StepTime, report: PromptReport) -> None:
        """The prompt ran in `step`: spans `prefill` and, below it, one `prune` for each layer that pruned."""
        self._prompt_step, self._report = step, report
        attributes = {
            names.ATTR_SEGMENT_ROWS: list(report.segment_rows),
            names.ATTR_QUEUE_MS: (step.start_s - self._accepted_s) * 1e3,
            names.ATTR_PROMPT_TOKENS: self._request.prompt.rows,
            names.ATTR_VISUAL_TOKENS: self._request.prompt.visual_rows,
        }
        prefill = self._tracer.start_span(names.SPAN_PREFILL, self._parent(), attributes=attributes, start_time=step.start_ns)
        for done, timed in zip(report.pruning, report.prune_times, strict=True):
            self._prune_span(prefill, step, done, timed)
        prefill.end(step.end_ns)

    def result(self, reason: FinishReason, *, tokens: int) -> Result:
        """The answer is complete: the span `decode`, from the first token to now, and all durations."""
        step = self._prompt_step
        if step is None:
            raise RuntimeError(f"request {self._request.request_id} ended before its prompt ran")
        decode_ms = (time.perf_counter() - step.end_s) * 1e3
        attributes = {names.ATTR_COMPLETION_TOKENS: tokens}
        span = self._tracer.start_span(names.SPAN_DECODE, self._parent(), attributes=attributes, start_time=step.end_ns)
        span.end(step.end_ns + round(decode_ms * _NS_PER_MS))
        return Result(
            reason=reason,
            completion_tokens=tokens,
            pruning=self._report.pruning,
            queue_ms=(step.start_s - self._accepted_s) * 1e3,
            prefill_ms=(step.end_s - step.start_s) * 1e3,
            prune_ms=sum(timed.duration_ms for timed in self._report.prune_times),
            decode_ms=decode_ms,
        )

    def _prune_span(self, prefill: Span, step: StepTime, done: LayerPruning, timed: PruneTime) -> None:
        start_ns = step.start_ns + round(timed.start_ms * _NS_PER_MS)
        attributes = {
            names.ATTR_PRUNE_LAYER: done.layer,
            names.ATTR_PRUNE_RATER: self._request.pruning.rater.value,
            names.ATTR_TOKENS_BEFORE: done.tokens_before,
            names.ATTR_TOKENS_AFTER: done.tokens_after,
        }
        below = set_span_in_context(prefill)
        span = self._tracer.start_span(names.SPAN_PRUNE, below, attributes=attributes, start_time=start_ns)
        span.end(start_ns + round(timed.duration_ms * _NS_PER_MS))

    def _parent(self) -> Context:
        return TraceContextTextMapPropagator().extract(carrier=self._request.trace_context)
