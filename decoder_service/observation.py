"""What one Generate call leaves behind: the span `generate`, metrics, and fields of its log line. Never a text or a digest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from decoder_service.answering import Asked
from decoder_service.chat import Chat, MediaKind
from decoder_service.question import Question
from decoder_service.request import Result
from vscan.errors import VScanError
from vscan.telemetry import names
from vscan.telemetry.logs import add_request_fields
from vscan.telemetry.metrics import DecoderMetrics, TokenMetrics
from vscan.telemetry.providers import Telemetry

_MAX_ATTRIBUTE = 2**63 - 1
_GONE = (asyncio.CancelledError, GeneratorExit)


class Observer:
    """Of one service."""

    def __init__(self, telemetry: Telemetry, *, model: str) -> None:
        self._tracer = telemetry.tracer
        self._decoder = DecoderMetrics(telemetry.meter)
        self._tokens = TokenMetrics(telemetry.meter)
        self._model = model

    @contextmanager
    def watch(self) -> Iterator[Observation]:
        """Around one call, from its arrival; the span is the current one within."""
        attributes = {names.ATTR_GEN_AI_PROVIDER: names.PROVIDER, names.ATTR_GEN_AI_REQUEST_MODEL: self._model}
        with self._tracer.start_as_current_span(
            names.SPAN_GENERATE, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield Observation(span, self._decoder, self._tokens)
            except _GONE:
                span.set_attribute(names.ATTR_ERROR_TYPE, "Cancelled")
                raise
            except Exception as error:
                # The text of an unknown fault may hold anything: it stays in the service's own log.
                span.set_attribute(names.ATTR_ERROR_TYPE, type(error).__name__)
                span.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, VScanError) else None))
                raise


class Observation:
    """Of one call. Durations in milliseconds, from the call's arrival."""

    def __init__(self, span: Span, decoder: DecoderMetrics, tokens: TokenMetrics) -> None:
        self._arrived_s = time.perf_counter()
        self._span = span
        self._decoder = decoder
        self._tokens = tokens
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
        operation = "chat" if isinstance(question.prompt, Chat) else "text_completion"
        self._span.set_attribute(names.ATTR_GEN_AI_OPERATION, operation)
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
        for image in asked.images:
            self._tokens.record("encoder", image.tokens.unreduced_count, image.tokens.kept_count)

    def token_came(self) -> None:
        """To be told of every token; only the first one counts."""
        if not self.time_to_first_token_ms:
            self.time_to_first_token_ms = self.elapsed_ms
            self._decoder.first_token(self.time_to_first_token_ms)
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
        self._decoder.waited(result.queue_ms)
        self._decoder.finished(
            input_tokens=rows,
            output_tokens=made,
            longest_tokens=max(each.completion_tokens for each in result.samples),
            decode_ms=result.decode_ms,
            total_ms=self.elapsed_ms,
        )
        if result.pruning:
            self._tokens.record("prune", result.pruning[0].tokens_before, result.pruning[-1].tokens_after)
