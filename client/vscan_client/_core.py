"""What both clients share: what a question is, when its images go as digests, when it is sent again, and how events become
an answer. No I/O and no messages: a transport has requests built (`_messages.py`), sends them and tells what came back.

    exchange = core.exchange(route, visuals, reduction, timeout)
    while True:
        with exchange.route.endpoint() as endpoint:     # one that is well, of several
            send(request built with exchange.form)      # digest where the server has seen the image or video, else bytes
        ├─ first event  → exchange.accepted()           # they count as seen; from here on nothing is sent again
        └─ error        → wait exchange.failed(error)   # seconds until the next try; raises the error when it is final
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from vscan.errors import DeadlineExceeded, FailedPrecondition, InternalError, InvalidArgument, MissingImages, VScanError
from vscan.specs import ReductionSpec
from vscan_client._balancer import Route
from vscan_client._retrying import RetryBudget, wait_seconds
from vscan_client._sent_images import SentImages
from vscan_client.answer import Answer, ClientReport, Event, Finished, Sample, SampleEnd, Started, TextDelta, Token
from vscan_client.content import Image, Message, Text, Video, Visual
from vscan_client.options import AskOptions, Retry, Timeout

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt in the model's own syntax, and what its placeholders stand for, each kind in its order."""

    text: str
    images: tuple[Image, ...]
    videos: tuple[Video, ...] = ()

    @classmethod
    def about(cls, visuals: Sequence[Visual], text: str) -> RawPrompt:
        """Images and videos may come mixed."""
        images = tuple(visual for visual in visuals if isinstance(visual, Image))
        return cls(text, images, tuple(visual for visual in visuals if isinstance(visual, Video)))

    @property
    def visuals(self) -> tuple[Visual, ...]:
        """The images, then the videos."""
        return (*self.images, *self.videos)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    prompt: tuple[Message, ...] | RawPrompt
    options: AskOptions

    @classmethod
    def about(cls, visuals: Sequence[Visual], question: str, options: AskOptions) -> Question:
        """One question about images and videos, which come first."""
        return cls((Message.user(*visuals, Text(question)),), options)

    @property
    def visuals(self) -> tuple[Visual, ...]:
        """Its images and videos."""
        if isinstance(self.prompt, RawPrompt):
            return self.prompt.visuals
        return tuple(part for message in self.prompt for part in message.parts if not isinstance(part, Text))

    @property
    def reduction(self) -> ReductionSpec | None:
        """Stage 1, as asked for."""
        return self.options.get("reduction")

    @property
    def samples(self) -> int:
        """How many answers it asks for."""
        sampling = self.options.get("sampling")
        return (sampling.n if sampling else None) or 1


class Core:
    """What a client remembers between calls. Belongs to one thread (or event loop)."""

    def __init__(
        self,
        *,
        timeout: Timeout,
        retry: Retry,
        remembered_images: int,
        clock: Clock = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self.sent = SentImages(remembered_images)
        self.retry = retry
        self.budget = RetryBudget(retry.budget)
        self.clock = clock
        self.random = random or Random()
        self._timeout = timeout

    def exchange(
        self, route: Route, visuals: Sequence[Visual], reduction: ReductionSpec | None, timeout: float | None
    ) -> Exchange:
        """Begins one call. `timeout` in seconds instead of the client's. Raises InvalidArgument for one that is not over 0."""
        if timeout is not None and not timeout > 0:
            raise InvalidArgument("timeout", f"{timeout:g}", limit="over 0 seconds")
        return Exchange(self, route, visuals, reduction, self._timeout.total if timeout is None else timeout)


class Exchange:
    """The tries of one call, and the way that they take."""

    def __init__(
        self, core: Core, route: Route, visuals: Sequence[Visual], reduction: ReductionSpec | None, total_s: float | None
    ) -> None:
        self.route = route
        self._core = core
        self._visuals = visuals
        self._reduction = reduction
        self._began = core.clock()
        self._total_s = total_s
        self._failures = 0  # rounds in which no endpoint took the call
        self._of_this_round: list[VScanError] = []
        # Digests of what this call has sent whole because the server asked for it.
        self._whole: set[bytes] = set()
        self._accepted = False
        self.attempts = 0
        self.sent_bytes = 0

    def form(self, visual: Visual) -> Visual:
        """An image or video as it goes in the next try: its digest alone where the server has seen it, else with its bytes."""
        seen = visual.sha256 not in self._whole and self._core.sent.knows(visual, self._reduction)
        return visual.bare if seen else visual

    def sending(self, request_bytes: int) -> float | None:
        """One more try begins: the seconds left for it, `None` without a limit. Raises DeadlineExceeded if there are none."""
        left_s = self.left_s()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded(f"no answer within {self._total_s:g} s")
        self.attempts += 1
        self.sent_bytes += request_bytes
        return left_s

    def left_s(self) -> float | None:
        """Seconds left for the call."""
        return None if self._total_s is None else self._total_s - (self._core.clock() - self._began)

    def elapsed_ms(self) -> float:
        """Since the call began."""
        return (self._core.clock() - self._began) * 1000

    def accepted(self) -> None:
        """The first event came, or the reply."""
        if not self._accepted:
            self._accepted = True
            self.route.succeeded()
            self._core.sent.add(self._visuals, self._reduction)
            self._core.budget.earn()

    def failed(self, error: VScanError) -> float:
        """Seconds to wait before the next try: none where it goes to another endpoint. Raises `error` when there is none."""
        another = self.route.failed(error)
        if self._accepted:
            raise error
        if isinstance(error, MissingImages):
            self._send_whole(error)
            self.route.stay()
            return 0.0
        if not error.retryable:
            raise error
        self._of_this_round.append(error)
        return 0.0 if another else self._wait_for_the_next_round(error)

    def _wait_for_the_next_round(self, error: VScanError) -> float:
        """Nobody took the call: it waits for the first that may."""
        self._failures += 1
        if self._failures >= self._core.retry.attempts:
            raise error
        retry, random = self._core.retry, self._core.random
        wait_s = min(wait_seconds(retry, self._failures, each, random) for each in self._of_this_round)
        left_s = self.left_s()
        if (left_s is not None and wait_s >= left_s) or not self._core.budget.spend():
            raise error
        self._of_this_round.clear()
        self.route.begin_again()
        return wait_s

    def _send_whole(self, error: MissingImages) -> None:
        """The next try carries the bytes of what the server lacks: of each image or video once, and only if they are here."""
        here = {visual.sha256 for visual in self._visuals if visual.is_whole}
        missing = set(error.sha256)
        self._core.sent.forget([visual for visual in self._visuals if visual.sha256 in missing], self._reduction)
        if not missing or not missing <= here - self._whole:
            raise error
        self._whole |= missing


class AnswerBuilder:
    """Folds the events of one stream into an answer of `samples` samples."""

    def __init__(self, exchange: Exchange, samples: int = 1) -> None:
        self._exchange, self._asked_samples = exchange, samples
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._texts: dict[int, list[str]] = defaultdict(list)  # by sample, as its tokens
        self._tokens: dict[int, list[Token]] = defaultdict(list)
        self._first_token_ms: float | None = None
        self._total_ms = 0.0

    def add(self, event: Event) -> None:
        """The next event. Raises InternalError if it has no place here."""
        if self._finished is not None or (self._started is None) != isinstance(event, Started):
            raise InternalError("the server's events came out of order")
        if isinstance(event, Started):
            self._started = event
        elif isinstance(event, TextDelta):
            self._add_text(event)
        else:
            self._finished = event
            self._total_ms = self._exchange.elapsed_ms()

    def _add_text(self, delta: TextDelta) -> None:
        if self._first_token_ms is None and (delta.tokens or delta.text):
            self._first_token_ms = self._exchange.elapsed_ms()
        self._texts[delta.sample].append(delta.text)
        self._tokens[delta.sample].extend(delta.tokens)

    def answer(self, trace_id: str = "") -> Answer:
        """The answer.

        Raises:
            InternalError: the stream ended before it.
            FailedPrecondition: the server made fewer samples than it was asked for.
        """
        if self._started is None or self._finished is None:
            raise InternalError("the server ended the stream before the answer was whole")
        # A server of an earlier release makes one and does not list it.
        ends = self._finished.samples or (SampleEnd(0, self._finished.reason, self._finished.usage.completion_tokens),)
        if len(ends) < self._asked_samples:
            made = f"{len(ends)} of {self._asked_samples} samples"
            raise FailedPrecondition(f"the server made {made}: it may be of an earlier release")
        samples = tuple(self._sample(end) for end in ends)
        return Answer(
            text=samples[0].text,
            tokens=samples[0].tokens,
            finish_reason=self._finished.reason,
            usage=self._finished.usage,
            timings=self._finished.timings,
            images=self._started.images,
            pruning=self._finished.pruning,
            seed=self._finished.seed,
            request_id=self._started.request_id,
            client=ClientReport(
                attempts=self._exchange.attempts,
                sent_bytes=self._exchange.sent_bytes,
                first_token_ms=self._first_token_ms,
                total_ms=self._total_ms,
                trace_id=trace_id,
                server=self._exchange.route.server,
            ),
            samples=samples,
        )

    def _sample(self, end: SampleEnd) -> Sample:
        return Sample("".join(self._texts[end.sample]), tuple(self._tokens[end.sample]), end.reason)
