"""Sixteen clients that ask all the time: most by the SDK, which tries again, and some by plain gRPC, which show every error."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Self

import grpc
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from tests.faults.album import Asking, Said, Undisturbed
from tests.faults.outcome import End, Outcome
from tests.support.asking import chat
from vscan.errors import VScanError
from vscan.rpc.channel import open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.v1 import decoder_pb2_grpc
from vscan_client import AsyncClient, Finished, Started

DEADLINE_SECONDS = 20.0
MARGIN_SECONDS = 5.0
CLIENTS = 16
_PLAIN = 4  # of them
_THINK_SECONDS = 0.1  # between two questions; after an error longer, so that a decoder that is away is not asked in a loop
_AFTER_AN_ERROR_SECONDS = 0.3


class Asker(ABC):
    """One client. Its channel is its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def ask(self, asking: Asking, expected: Said | None) -> tuple[Outcome, Said | None]:
        """Asks once, and says what became of it; the answer too, if there is one. `expected`: the undisturbed answer."""
        begun_s = time.monotonic()
        seen = Seen()
        said: Said | None = None
        end, error, message = End.ANSWERED, "", ""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS + MARGIN_SECONDS):
                said = await self._ask(asking, seen)
        except VScanError as raised:
            end, error, message = End.TYPED_ERROR, type(raised).__name__, raised.message
        except Exception as raised:
            end, error, message = End.LOST, type(raised).__name__, str(raised)
        outcome = Outcome(
            client=self.number,
            begun_s=begun_s,
            ended_s=time.monotonic(),
            end=end,
            equal=expected is not None and said == expected,
            error=error,
            message=message,
            attempts=seen.attempts,
            request_id=seen.request_id,
            ends=seen.ends,
            late_events=seen.late_events,
            sent_again=seen.sent_again,
        )
        return outcome, said

    @abstractmethod
    async def aclose(self) -> None:
        """Closes the channel."""

    @abstractmethod
    async def _ask(self, asking: Asking, seen: Seen) -> Said:
        """Raises what the client raises."""


class Seen:
    """What a client sees of one request, also of one that fails."""

    def __init__(self) -> None:
        self.attempts = 1
        self.request_id = ""
        self.ends = 0
        self.late_events = 0
        self.sent_again = False


class Sendings(SpanProcessor):  # type: ignore[misc]
    """When each request was sent: a call's span begins then."""

    def __init__(self) -> None:
        self.at_ns: list[int] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Notes calls alone."""
        if span.kind is SpanKind.CLIENT:
            self.at_ns.append(span.start_time or 0)


class SdkAsker(Asker):
    """The SDK's asynchronous client. How often it sent a request, and when, is told by the spans of its calls."""

    def __init__(self, number: int, servers: Sequence[str]) -> None:
        super().__init__(number)
        self._sendings = Sendings()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self._sendings)
        self._client = AsyncClient(server=list(servers), tracer_provider=provider)

    async def aclose(self) -> None:
        """Closes the client."""
        await self._client.aclose()

    async def _ask(self, asking: Asking, seen: Seen) -> Said:
        self._sendings.at_ns.clear()
        first_event_ns: int | None = None
        try:
            async with self._client.stream(asking.png, asking.text, timeout=DEADLINE_SECONDS) as stream:
                async for event in stream:
                    first_event_ns = first_event_ns or time.time_ns()
                    seen.late_events += seen.ends
                    seen.ends += isinstance(event, Finished)
                    if isinstance(event, Started):
                        seen.request_id = event.request_id
            return Said(stream.answer.text, tuple(token.token_id for token in stream.answer.tokens))
        finally:
            sent_ns = self._sendings.at_ns
            seen.attempts = len(sent_ns)
            seen.sent_again = first_event_ns is not None and any(sent > first_event_ns for sent in sent_ns)


class PlainAsker(Asker):
    """A generated stub on a channel: nothing is sent again."""

    def __init__(self, number: int, server: str) -> None:
        super().__init__(number)
        self._channel = open_channel(server)
        self._stub = decoder_pb2_grpc.DecoderStub(self._channel)  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def _ask(self, asking: Asking, seen: Seen) -> Said:
        request = chat(asking.png, asking.text, ignore_eos=False, max_new_tokens=256)
        texts: list[str] = []
        token_ids: list[int] = []
        try:
            async for event in self._stub.Generate(request, timeout=DEADLINE_SECONDS):
                seen.late_events += seen.ends
                kind = event.WhichOneof("event")
                seen.ends += kind == "finished"
                if kind == "started":
                    seen.request_id = event.started.request_id
                elif kind == "delta":
                    texts.append(event.delta.text)
                    token_ids += [token.token_id for token in event.delta.tokens]
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        if not seen.ends:
            raise RuntimeError("the stream ended well and without an end")
        return Said("".join(texts), tuple(token_ids))


class Askers:
    """All of them, each asking one question after the other until the context is left.

    Args:
        servers: the decoders; each plain client asks one of them.
        plain: how many are plain gRPC.
    """

    def __init__(
        self, servers: Sequence[str], questions: Sequence[Asking], undisturbed: Undisturbed, *, plain: int = _PLAIN
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._questions, self._undisturbed = questions, undisturbed
        sdk = [SdkAsker(number, servers) for number in range(CLIENTS - plain)]
        plain_ones = [PlainAsker(number, servers[number % len(servers)]) for number in range(len(sdk), CLIENTS)]
        self._askers: list[Asker] = [*sdk, *plain_ones]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._go_on(asker)) for asker in self._askers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True  # what is under way is waited for: it must end by itself
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)
        for asker in self._askers:
            await asker.aclose()

    async def all_answered_since(self, moment_s: float, within_seconds: float) -> float | None:
        """Waits until each client got an answer since then.

        Returns the seconds from then to the last client's first one; None if one of them got none in time.
        """

        def firsts() -> dict[int, float]:
            answered = [each for each in self.outcomes if each.end is End.ANSWERED and each.ended_s >= moment_s]
            return {each.client: each.ended_s for each in reversed(answered)}

        try:
            async with asyncio.timeout(within_seconds), self._came:
                await self._came.wait_for(lambda: len(firsts()) == len(self._askers))
        except TimeoutError:
            return None
        return round(max(firsts().values()) - moment_s, 2)

    async def _go_on(self, asker: Asker) -> None:
        for turn in count(asker.number):
            if self._stopping:
                return
            asking = self._questions[turn % len(self._questions)]
            outcome, _ = await asker.ask(asking, self._undisturbed[asking])
            async with self._came:
                self.outcomes.append(outcome)
                self._came.notify_all()
            await asyncio.sleep(_THINK_SECONDS if outcome.end is End.ANSWERED else _AFTER_AN_ERROR_SECONDS)


async def undisturbed_answers(server: str, questions: Sequence[Asking]) -> dict[Asking, Said]:
    """Every question asked alone, while nothing is wrong. Raises RuntimeError where one is not answered."""
    asker = SdkAsker(0, [server])
    answers: dict[Asking, Said] = {}
    try:
        for asking in questions:
            outcome, said = await asker.ask(asking, None)
            if said is None:
                raise RuntimeError(f"with nothing wrong a question ended with {outcome.error}")
            answers[asking] = said
    finally:
        await asker.aclose()
    return answers
