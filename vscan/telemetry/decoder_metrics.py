"""The decoder's instruments: what the engine has and does, and how fast answers come."""

from __future__ import annotations

from opentelemetry.metrics import Meter

from vscan.telemetry import names
from vscan.telemetry.metrics import counter, gauge, histogram, up_down


class EngineMetrics:
    """The engine's queue, its steps and its memory."""

    def __init__(self, meter: Meter) -> None:
        self._waiting = up_down(meter, names.METRIC_DECODER_WAITING)
        self._queue_capacity = gauge(meter, names.METRIC_DECODER_QUEUE_CAPACITY)
        self._queue_wait = histogram(meter, names.METRIC_DECODER_QUEUE_WAIT)
        self._running = up_down(meter, names.METRIC_DECODER_RUNNING)
        self._capacity = gauge(meter, names.METRIC_DECODER_CAPACITY)
        self._step = histogram(meter, names.METRIC_STEP)
        self._step_rows = histogram(meter, names.METRIC_STEP_ROWS)
        self._step_sequences = histogram(meter, names.METRIC_STEP_SEQUENCES)
        self._kv_rows = gauge(meter, names.METRIC_KV_ROWS)
        self._kv_bytes = gauge(meter, names.METRIC_KV_BYTES)
        self._kv_blocks = gauge(meter, names.METRIC_KV_BLOCKS)
        self._kv_idle_bytes = gauge(meter, names.METRIC_KV_IDLE_BYTES)
        self._kv_pages = gauge(meter, names.METRIC_KV_PAGES)
        self._kv_reused_rows = counter(meter, names.METRIC_KV_REUSED_ROWS)
        self._preemptions = counter(meter, names.METRIC_PREEMPTIONS)

    def capacity(self, *, running: int, waiting: int) -> None:
        """How many may run at once, and wait."""
        self._capacity.set(running)
        self._queue_capacity.set(waiting)

    def waiting(self, change: int) -> None:
        """Requests joined (+) or left (-) the queue."""
        self._waiting.add(change)

    def waited(self, queue_ms: float) -> None:
        """A request's wait ended in its first step."""
        self._queue_wait.record(queue_ms)

    def running(self, change: int) -> None:
        """Requests joined (+) or left (-) the batch."""
        self._running.add(change)

    def stepped(self, duration_ms: float, *, rows: int, sequences: int) -> None:
        """A step ran so many rows at the first layer."""
        self._step.record(duration_ms)
        self._step_rows.record(rows)
        self._step_sequences.record(sequences)

    def kv(self, segment: int, *, rows: int, blocks: int, used_bytes: int, idle_bytes: int) -> None:
        """What a segment holds now."""
        attributes = {names.ATTR_SEGMENT: segment}
        self._kv_rows.set(rows, attributes)
        self._kv_blocks.set(blocks, attributes)
        self._kv_bytes.set(used_bytes, attributes)
        self._kv_idle_bytes.set(idle_bytes, attributes)

    def kv_pages(self, *, held: int, idle: int, free: int) -> None:
        """What became of the cache's pages."""
        for state, count in (("held", held), ("idle", idle), ("free", free)):
            self._kv_pages.set(count, {names.ATTR_PAGE_STATE: state})

    def reused(self, rows: int) -> None:
        """So many more prompt rows were found in the cache."""
        self._kv_reused_rows.add(rows)

    def preempted(self, count: int) -> None:
        """So many more requests gave their memory back."""
        self._preemptions.add(count)


class AnswerMetrics:
    """How requests fare: where their images were, how fast their answers come, how they end.

    Args:
        model: its name here, which all requests are for.
    """

    def __init__(self, meter: Meter, *, model: str) -> None:
        self._of_model = {names.ATTR_GEN_AI_PROVIDER: names.PROVIDER, names.ATTR_GEN_AI_REQUEST_MODEL: model}
        self._images = counter(meter, names.METRIC_IMAGES)
        self._first_token = histogram(meter, names.METRIC_TIME_TO_FIRST_TOKEN)
        self._given_up = histogram(meter, names.METRIC_GIVEN_UP)
        self._gap = histogram(meter, names.METRIC_TOKEN_GAP)
        self._per_token = histogram(meter, names.METRIC_TIME_PER_OUTPUT_TOKEN)
        self._duration = histogram(meter, names.METRIC_GEN_AI_REQUEST_DURATION)
        self._usage = histogram(meter, names.METRIC_TOKEN_USAGE)

    def image(self, media: str, place: str) -> None:
        """The tokens of an "image" or "video" were found there (see `names.ATTR_PLACE`)."""
        self._images.add(1, {names.ATTR_MEDIA: media, names.ATTR_PLACE: place})

    def first_token(self, operation: str, time_ms: float) -> None:
        """A request's first token came `time_ms` after its arrival. `operation`: see `names.ATTR_GEN_AI_OPERATION`."""
        self._first_token.record(time_ms / 1000, self._of(operation))

    def given_up(self, operation: str, time_ms: float) -> None:
        """Nobody waits any more for a request's first token, `time_ms` after its arrival."""
        self._given_up.record(time_ms / 1000, self._of(operation))

    def next_token(self, gap_ms: float) -> None:
        """Another token came so long after the one before."""
        self._gap.record(gap_ms)

    def finished(
        self, operation: str, *, input_tokens: int, output_tokens: int, longest_tokens: int, decode_ms: float, total_ms: float
    ) -> None:
        """A request ended, all of its samples having made `output_tokens` and one of them `longest_tokens`, after the first of
        which `decode_ms` passed.
        """
        attributes = self._of(operation)
        self._usage.record(input_tokens, attributes | {names.ATTR_GEN_AI_TOKEN_TYPE: "input"})
        self._usage.record(output_tokens, attributes | {names.ATTR_GEN_AI_TOKEN_TYPE: "output"})
        self._duration.record(total_ms / 1000, attributes)
        if longest_tokens > 1:
            self._per_token.record(decode_ms / 1000 / (longest_tokens - 1), attributes)

    def failed(self, operation: str, error: str, total_ms: float) -> None:
        """A request ended without its whole answer, by an error of this class, or "Cancelled"."""
        self._duration.record(total_ms / 1000, self._of(operation) | {names.ATTR_ERROR_TYPE: error})

    def _of(self, operation: str) -> dict[str, str]:
        return {names.ATTR_GEN_AI_OPERATION: operation} | self._of_model
