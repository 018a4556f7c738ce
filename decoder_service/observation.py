"""What one Generate call leaves behind: the span `generate`, metrics, and fields of its log line. Never a text or a digest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from decoder_service.answering import Asked
from decoder_service.chat import MediaKind
from decoder_service.question import Question
from decoder_service.request import Delta, Result
from vscan.errors import Cancelled, DeadlineExceeded, VScanError
from vscan.telemetry import names
from vscan.telemetry.decoder_metrics import AnswerMetrics
from vscan.telemetry.logs import add_request_fields
from vscan.telemetry.metrics import TokenMetrics
from vscan.telemetry.providers import Telemetry

_MAX_ATTRIBUTE = 2**63 - 1
_GONE = (asyncio.CancelledError, GeneratorExit)
_NOBODY_WAITS = frozenset({Cancelled.__name__, DeadlineExceeded.__name__})


class Observer:
    """Of one service."""

    def __init__(self, telemetry: Telemetry, *, model: str) -> None:
        self._tracer = telemetry.tracer
        self._answers = AnswerMetrics(telemetry.meter, model=model)
        self._tokens = TokenMetrics(telemetry.meter)
        self._model = model

    @contextmanager
    def watch(self, prompt: str | None) -> Iterator[Observation]:
        """Around one call, from its arrival; the span is the current one within. `prompt`: which of the contract's it has."""
        operation = "text_completion" if prompt == "raw" else "chat"
        attributes = {
            names.ATTR_GEN_AI_OPERATION: operation,
            names.ATTR_GEN_AI_PROVIDER: names.PROVIDER,
            names.ATTR_GEN_AI_REQUEST_MODEL: self._model,
        }
        with self._tracer.start_as_current_span(
            names.SPAN_GENERATE, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            observation = Observation(span, self._answers, self._tokens, operation)
            try:
                yield observation
            except _GONE:
                observation.failed(Cancelled.__name__)
                raise
            except Exception as error:
                observation.failed(type(error).__name__)
                # The text of an unknown fault may hold anything: it stays in the service's own log.
                span.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, VScanError) else None))
                raise


class Observation:
    """Of one call. Durations in milliseconds, from the call's arrival."""

    def __init__(self, span: Span, answers: AnswerMetrics, tokens: TokenMetrics, operation: str) -> None:
        self._arrived_s = time.perf_counter()
        self._span = span
        self._answers = answers
        self._tokens = tokens
        self._operation = operation
        self._last_s: dict[int, float] = {}  # by sample: when its last token came
        self._ended = False
        self.time_to_first_token_ms = 0.0

    @property
    def elapsed_ms(self) -> float:
        """Since the call's arrival."""
        return (time.perf_counter() - self._arrived_s) * 1e3

    def trace_context(self) -> dict[str, str]:
        """The span as W3C headers, for the engine's thread."""
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        return headers

    def asked(self, question: Question) -> None:
        """The request was read."""
        videos = sum(one.kind is MediaKind.VIDEO for one in question.media)
        images = len(question.media) - videos
        self._span.set_attributes({names.ATTR_IMAGES: images, names.ATTR_VIDEOS: videos})
        add_request_fields(images=images, videos=videos)

    def accepted(self, asked: Asked) -> None:
        """The engine has it."""
        request, sampling = asked.request, asked.request.sampling
        places = [image.place.name.lower() for image in asked.images]
        self._span.set_attributes(
            {
                names.ATTR_GEN_AI_RESPONSE_ID: request.request_id,
                names.ATTR_REQUEST_ID: request.request_id,
                names.ATTR_TENANT: request.tenant,
                names.ATTR_GEN_AI_MAX_TOKENS: sampling.max_new_tokens,
                names.ATTR_GEN_AI_TEMPERATURE: sampling.temperature,
                names.ATTR_GEN_AI_TOP_P: sampling.top_p,
                names.ATTR_GEN_AI_TOP_K: sampling.top_k,
                names.ATTR_GEN_AI_SEED: min(sampling.seed, _MAX_ATTRIBUTE),
                names.ATTR_GEN_AI_CHOICES: sampling.n,
                names.ATTR_PLACES: places,
                names.ATTR_VISUAL_TOKENS: request.prompt.visual_rows,
            }
        )
        add_request_fields(
            request=request.request_id,
            places=",".join(places),
            prompt_tokens=request.prompt.rows,
            visual_tokens=request.prompt.visual_rows,
            visual_tokens_unreduced=asked.visual_unreduced,
            samples=sampling.n,
        )
        for image, place in zip(asked.images, places, strict=True):
            self._tokens.record("encoder", image.tokens.unreduced_count, image.tokens.kept_count)
            self._answers.image("image" if image.tokens.frames is None else "video", place)

    def token_came(self, delta: Delta, came_s: float) -> None:
        """More of an answer came, by `time.perf_counter`: nearly always one token."""
        last_s = self._last_s.get(delta.sample)
        self._last_s[delta.sample] = came_s
        if last_s is not None:
            self._answers.next_token((came_s - last_s) * 1e3)
        if not self.time_to_first_token_ms:
            # Not when it is passed on: a caller that is slow to take what came before it does not make answers late.
            self.time_to_first_token_ms = (came_s - self._arrived_s) * 1e3
            self._answers.first_token(self._operation, self.time_to_first_token_ms)
            self._span.set_attribute(names.ATTR_TIME_TO_FIRST_TOKEN_MS, self.time_to_first_token_ms)
            add_request_fields(time_to_first_token_ms=self.time_to_first_token_ms)

    def finished(self, asked: Asked, result: Result) -> None:
        """The answer is complete."""
        rows, made = asked.request.prompt.rows, result.completion_tokens
        self._span.set_attributes(
            {
                names.ATTR_GEN_AI_FINISH_REASONS: [each.reason.value for each in result.samples],
                names.ATTR_GEN_AI_INPUT_TOKENS: rows,
                names.ATTR_GEN_AI_OUTPUT_TOKENS: made,
            }
        )
        add_request_fields(completion_tokens=made, reason=result.reason.value)
        self._ended = True
        self._answers.finished(
            self._operation,
            input_tokens=rows,
            output_tokens=made,
            longest_tokens=max(each.completion_tokens for each in result.samples),
            decode_ms=result.decode_ms,
            total_ms=self.elapsed_ms,
        )
        if result.pruning:
            self._tokens.record("prune", result.pruning[0].tokens_before, result.pruning[-1].tokens_after)

    def failed(self, error: str) -> None:
        """The call ended by an error of this class, or "Cancelled". A caller that leaves with a whole answer has not failed."""
        self._span.set_attribute(names.ATTR_ERROR_TYPE, error)
        if self._ended:
            return
        elapsed_ms = self.elapsed_ms
        self._answers.failed(self._operation, error, elapsed_ms)
        if error in _NOBODY_WAITS and not self.time_to_first_token_ms:
            self._answers.given_up(self._operation, elapsed_ms)
