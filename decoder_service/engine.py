"""The engine: a step is schedule → run → apply. No threads here; `engine_loop.py` drives it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from opentelemetry.trace import NoOpTracer, Tracer

from decoder_service.admission import check_positions, check_request
from decoder_service.answer import Answer
from decoder_service.detokenize import TokenDecoder
from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.segments import PageUsage, SegmentUsage
from decoder_service.request import EngineRequest, Event, Failure, Result, State
from decoder_service.request_times import RequestTimes, StepTime
from decoder_service.runner.faults import fault_of
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.samples import Samples
from decoder_service.scheduler import Scheduler, Step
from decoder_service.sequence import Piece, Sequence
from vscan.errors import Cancelled, DeadlineExceeded, InternalError, ResourceExhausted, VScanError

logger = logging.getLogger(__name__)

# What happened to whom.
Outcome = tuple[str, Event]
_MOST_STEPS = 16_384  # kept for metrics, if nobody takes them


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine at the end of a step, for metrics. What was reused and preempted is counted since the start."""

    waiting: int  # these two are as they are now, in the middle of a step too
    running: int
    segments: tuple[SegmentUsage, ...]
    pages: PageUsage | None = None
    reused_rows: int = 0
    preemptions: int = 0


class StepFigures(NamedTuple):
    """One step that ran rows, for metrics."""

    duration_ms: float
    rows: int  # at the first layer
    sequences: int
    queue_ms: tuple[float, ...]  # how long those had waited for whom it was the first one


@dataclass(slots=True, eq=False)
class _Request:
    asked: EngineRequest
    samples: Samples
    times: RequestTimes


class Engine:
    """Owned by one thread. `check`, `check_room`, `figures` and `take_steps` may be used from any.

    Args:
        runner: the device work.
        cache: where rows have room; of the runner's layout and number of pages.
        scheduler: who runs.
        decode: token ids to text.
        tracer: of the spans `prefill`, `prune` and `decode`; None for none.
    """

    def __init__(
        self, *, runner: Runner, cache: KvCache, scheduler: Scheduler, decode: TokenDecoder, tracer: Tracer | None = None
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._scheduler = scheduler
        self._decode = decode
        self._tracer = tracer or NoOpTracer()
        self._requests: dict[str, _Request] = {}
        self._steps: deque[StepFigures] = deque(maxlen=_MOST_STEPS)
        self._begun_ms: list[float] = []  # in this step, after so long a wait
        self.figures = EngineFigures(0, 0, cache.usage())

    def prepare(self) -> None:
        """Once, before the first step and on its thread: what would keep callers waiting if it were done for them.

        Raises:
            Exception: the device is gone.
        """
        self._runner.prepare(most_sequences=self._scheduler.max_running, most_rows=self._scheduler.max_context_tokens)

    def check(self, request: EngineRequest) -> None:
        """Raises InvalidArgument if the request can never be served."""
        check_request(request, self._runner)
        self._scheduler.check(Sequence(request, self._runner.layout.segments))
        check_positions(request, self._runner.model)

    def check_room(self, tenant: str, on_the_way: Iterable[str] = ()) -> None:
        """Raises ResourceExhausted if no further request of `tenant` may wait; see `Scheduler.check_room`."""
        self._scheduler.check_room(tenant, on_the_way)

    def check_integrity(self) -> None:
        """Raises AssertionError if the cache leaked a page or miscounts."""
        self._cache.check_integrity()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._requests

    def add(self, request: EngineRequest, *, accepted_s: float) -> list[Outcome]:
        """Takes a request that passed `check` and `check_room`; `accepted_s` is when, by `time.perf_counter`.

        Ends one that waits if its tenant has to leave its place to this one.
        """
        sequence = Sequence(request, self._runner.layout.segments)
        end_ids = self._runner.model.tokens.end_ids
        answers = [
            Answer(request.sampling, decode=self._decode, end_ids=end_ids, sample=sample) for sample in range(sequence.samples)
        ]
        times = RequestTimes(request, self._tracer, accepted_s=accepted_s)
        self._requests[request.request_id] = _Request(request, Samples(sequence, answers, self._scheduler), times)
        loser = self._scheduler.add(sequence)
        self._count_requests()
        if loser is None:
            return []
        delay_ms = self._scheduler.retry_delay_ms()
        error = ResourceExhausted("the queue is full, and others have fewer requests in it", retry_delay_ms=delay_ms)
        return [self._end(loser.request_id, State.FAILED, Failure(error))]

    def cancel(self, request_id: str) -> list[Outcome]:
        """Ends a request between steps; one that has ended already is left alone."""
        if request_id not in self._requests:
            return []
        outcome = self._end(request_id, State.CANCELLED, Failure(Cancelled("the request was cancelled")))
        self._refresh_figures()
        return [outcome]

    def fail(self, request_id: str, error: VScanError) -> list[Outcome]:
        """Ends a request between steps with `error`; one that has ended already is left alone."""
        if request_id not in self._requests:
            return []
        outcome = self._end(request_id, State.FAILED, Failure(error))
        self._refresh_figures()
        return [outcome]

    def step(self) -> list[Outcome]:
        """One step. What fails in it ends the requests that it fails for, and no others.

        Raises:
            DeviceLost: nothing more can be served.
        """
        started_s = time.perf_counter()
        outcomes = self._end_late()
        step = self._scheduler.schedule()
        self._count_requests()  # a step may take long, or never end: meanwhile too it is known for how many
        if step.pieces:
            outcomes += self._run(step)
        self._refresh_figures()
        if step.pieces:
            self._remember(step, started_s)
        return outcomes

    def take_steps(self, most: int = _MOST_STEPS) -> list[StepFigures]:
        """The oldest steps that nobody has taken, each once; of very many the first ones are lost."""
        steps = self._steps
        return [steps.popleft() for _ in range(min(most, len(steps)))]

    def _remember(self, step: Step, started_s: float) -> None:
        rows, begun_ms = sum(piece.rows(0) for piece in step.pieces), tuple(self._begun_ms)
        self._begun_ms.clear()
        self._steps.append(StepFigures((time.perf_counter() - started_s) * 1e3, rows, len(step.pieces), begun_ms))

    def end_all(self, error: VScanError) -> list[Outcome]:
        """Ends every request that is left with `error`."""
        outcomes = [self._end(request_id, State.FAILED, Failure(error.copy())) for request_id in list(self._requests)]
        self._refresh_figures()
        return outcomes

    def _run(self, step: Step) -> list[Outcome]:
        time = StepTime()
        try:
            outputs = self._runner.run(step.pieces, step.copies)
        except Exception as error:  # nobody's own fault
            fault = fault_of(error)
            outcomes = [self._fail(name, fault) for name in dict.fromkeys(piece.sequence.request_id for piece in step.pieces)]
            self._scheduler.broke(step)
            return outcomes
        time.end()
        ran = list(zip(step.pieces, outputs, strict=True))
        self._scheduler.advance(replace(step, pieces=tuple(piece for piece, output in ran if output.fault is None)))
        return [outcome for piece, output in ran for outcome in self._apply(piece, output, time)]

    def _apply(self, piece: Piece, output: SequenceOutput, time: StepTime) -> list[Outcome]:
        if output.request_id not in self._requests:  # another of its samples has just failed, and it with it
            return []
        if output.fault is not None:
            return [self._fail(output.request_id, output.fault)]
        try:
            return self._told(piece, output, time)
        except Exception as error:
            return [self._fail(output.request_id, error)]

    def _told(self, piece: Piece, output: SequenceOutput, time: StepTime) -> list[Outcome]:
        """What the step's caller hears: more of the answers, if there are tokens, and the end, if they end with them."""
        name, request = output.request_id, self._requests[output.request_id]
        is_first = not request.times.began
        request.times.ran(time, piece, output)
        if is_first:
            self._begun_ms.append(request.times.queue_ms)
        deltas: list[Outcome] = [(name, delta) for delta in request.samples.push(piece.sequence, output.tokens)]
        if request.samples.ends is None:
            return deltas
        result = request.times.result(request.samples.ends)
        self._scheduler.learn(result.prefill_ms + result.decode_ms)
        return [*deltas, self._end(name, State.FINISHED, result)]

    def _end_late(self) -> list[Outcome]:
        """Ends those for whom nobody waits any more."""
        late = [name for name, request in self._requests.items() if request.asked.deadline.passed]
        error = DeadlineExceeded("the deadline passed before the answer was complete")
        return [self._end(name, State.FAILED, Failure(error.copy())) for name in late]

    def _fail(self, request_id: str, error: Exception) -> Outcome:
        with self._requests[request_id].times.in_trace():
            if not isinstance(error, VScanError):
                logger.error("the engine failed in a step of request %s", request_id, exc_info=error)
                error = InternalError("the engine failed in a step of this request")
            elif isinstance(error, InternalError):
                logger.warning("request %s: %s", request_id, error)
        return self._end(request_id, State.FAILED, Failure(error.copy()))

    def _end(self, request_id: str, state: State, event: Result | Failure) -> Outcome:
        request = self._requests.pop(request_id)
        request.samples.end(state)
        self._runner.close(request_id)
        return request_id, event

    def _count_requests(self) -> None:
        """In the figures; what the cache holds is looked up when a step is over."""
        waiting, running = self._scheduler.waiting, self._scheduler.running
        if (waiting, running) != (self.figures.waiting, self.figures.running):
            self.figures = replace(self.figures, waiting=waiting, running=running)

    def _refresh_figures(self) -> None:
        scheduler, cache = self._scheduler, self._cache
        self.figures = EngineFigures(
            scheduler.waiting, scheduler.running, cache.usage(), cache.page_usage(), cache.reused_rows, scheduler.preemptions
        )
