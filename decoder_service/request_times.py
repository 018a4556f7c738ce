"""When a request waited, was prefilled, pruned and decoded: durations for its result, spans for its trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from decoder_service.request import EngineRequest, Result, SampleEnd
from decoder_service.runner.runner import PruneReport, SequenceOutput
from decoder_service.sequence import Piece
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
        self._first: StepTime | None = None  # the first step that ran rows of the prompt
        self._prefilled: StepTime | None = None  # the step that gave the first token
        self._reused_rows: tuple[int, ...] = ()
        self._reused_average = 0.0
        self._pruned: list[tuple[StepTime, PruneReport]] = []

    @property
    def began(self) -> bool:
        """Whether rows of the request have run."""
        return self._first is not None

    @property
    def queue_ms(self) -> float:
        """From its acceptance to its first step; 0 before that one."""
        return 0.0 if self._first is None else (self._first.start_s - self._accepted_s) * 1e3

    def ran(self, step: StepTime, piece: Piece, output: SequenceOutput) -> None:
        """Rows of the request ran in `step`. The spans `prefill`, and below it one `prune` for each layer that pruned, are made
        when the first token is there."""
        if self._first is None:
            self._first = step
            self._reused_rows = tuple(start for start, _ in piece.ranges)
            self._reused_average = piece.sequence.average(self._reused_rows)
        self._pruned += [(step, report) for report in output.pruned]
        if output.tokens and self._prefilled is None:
            self._prefilled = step
            self._prefill_span(self._first, step, piece.sequence.prompt_rows)

    def result(self, samples: tuple[SampleEnd, ...]) -> Result:
        """All answers are complete: the span `decode`, from the first token to now, and all durations."""
        first, last = self._first, self._prefilled
        if first is None or last is None:
            raise RuntimeError(f"request {self._request.request_id} ended before its prompt ran")
        decode_ms = (time.perf_counter() - last.end_s) * 1e3
        attributes = {names.ATTR_COMPLETION_TOKENS: sum(each.completion_tokens for each in samples)}
        span = self._tracer.start_span(names.SPAN_DECODE, self._parent(), attributes=attributes, start_time=last.end_ns)
        span.end(last.end_ns + round(decode_ms * _NS_PER_MS))
        return Result(
            samples=samples,
            pruning=tuple(report.pruning for _, report in self._pruned),
            queue_ms=self.queue_ms,
            prefill_ms=(last.end_s - first.start_s) * 1e3,
            prune_ms=sum(report.duration_ms for _, report in self._pruned),
            decode_ms=decode_ms,
            reused_rows=self._reused_rows[0],
            reused_rows_average=self._reused_average,
        )

    @contextmanager
    def in_trace(self) -> Iterator[None]:
        """Around log lines about the request: they have its trace, as those of its call have."""
        token = attach(self._parent())
        try:
            yield
        finally:
            detach(token)

    def _prefill_span(self, first: StepTime, last: StepTime, segment_rows: tuple[int, ...]) -> None:
        attributes = {
            names.ATTR_SEGMENT_ROWS: list(segment_rows),
            names.ATTR_REUSED_ROWS: list(self._reused_rows),
            names.ATTR_QUEUE_MS: self.queue_ms,
            names.ATTR_PROMPT_TOKENS: self._request.prompt.rows,
            names.ATTR_VISUAL_TOKENS: self._request.prompt.visual_rows,
        }
        prefill = self._tracer.start_span(names.SPAN_PREFILL, self._parent(), attributes=attributes, start_time=first.start_ns)
        for step, report in self._pruned:
            self._prune_span(prefill, step, report)
        prefill.end(last.end_ns)

    def _prune_span(self, prefill: Span, step: StepTime, report: PruneReport) -> None:
        start_ns = step.start_ns + round(report.start_ms * _NS_PER_MS)
        attributes = {
            names.ATTR_PRUNE_LAYER: report.pruning.layer,
            names.ATTR_PRUNE_RATER: self._request.pruning.rater.value,
            names.ATTR_TOKENS_BEFORE: report.pruning.tokens_before,
            names.ATTR_TOKENS_AFTER: report.pruning.tokens_after,
        }
        below = set_span_in_context(prefill)
        span = self._tracer.start_span(names.SPAN_PRUNE, below, attributes=attributes, start_time=start_ns)
        span.end(start_ns + round(report.duration_ms * _NS_PER_MS))

    def _parent(self) -> Context:
        return TraceContextTextMapPropagator().extract(carrier=self._request.trace_context)
