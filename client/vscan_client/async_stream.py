"""An answer while it is made, for programs that run an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from opentelemetry import trace

from vscan.errors import VScanError
from vscan.rpc.bearer import Bearer
from vscan.rpc.error_details import error_from_rpc
from vscan.v1 import decoder_pb2_grpc
from vscan_client import _messages
from vscan_client._affinity import affinity_metadata
from vscan_client._core import AnswerBuilder, Core, Exchange, Question
from vscan_client._replicas import Replicas, raise_if_closed
from vscan_client._tracing import ask_span, describe_answer, describe_tries, trace_id_of, within
from vscan_client.answer import Answer, Event, TextDelta

GenerateCall = Any  # grpc.aio.UnaryStreamCall[GenerateRequest, GenerateEvent]


class AsyncAnswerStream:
    """Iterates over `Started`, `TextDelta`…, `Finished`; then `answer` is there. Asking for the first event sends the request.

        async with client.stream("photo.jpg", "What is this?") as stream:
            async for piece in stream.texts():
                print(piece, end="")
        print(stream.answer.usage)

    Leaving early cancels the request on the server.
    """

    def __init__(
        self,
        prepare: Callable[[], Awaitable[Question]],
        *,
        core: Core,
        tracer: trace.Tracer,
        replicas: Replicas,
        bearer: Bearer,
        is_closed: Callable[[], bool],
    ) -> None:
        self._prepare, self._core, self._tracer, self._replicas = prepare, core, tracer, replicas
        self._bearer = bearer
        self._client_is_closed = is_closed
        self._closed = self._running = False
        self._call: GenerateCall | None = None
        self._answer: Answer | None = None
        self._events = self._run()

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended. Before that: RuntimeError."""
        if self._answer is None:
            raise RuntimeError("the answer is not whole yet: iterate to the end of the stream")
        return self._answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._running = True
        try:
            return await anext(self._events)
        finally:
            self._running = False

    async def texts(self, sample: int = 0) -> AsyncIterator[str]:
        """The answer's text, piece by piece; of one sample where there are several. Those of the others are passed over."""
        async for event in self:
            if isinstance(event, TextDelta) and event.text and event.sample == sample:
                yield event.text

    async def aclose(self) -> None:
        """Ends the stream; the server stops working on it. A task that is waiting for its next event gets `Cancelled`."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        # A generator that is running cannot be closed from outside; the cancelled call ends it.
        if not self._running:
            await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self) -> AsyncGenerator[Event, None]:
        question = await self._prepare()
        with ask_span(self._tracer, question.visuals) as span:
            route = self._replicas.route(question.visuals)
            exchange = self._core.exchange(route, question.visuals, question.reduction, question.options.get("timeout"))
            builder = AnswerBuilder(exchange, question.samples)
            try:
                async with aclosing(self._tries(question, exchange, span)) as events:
                    async for event in events:
                        builder.add(event)
                        yield event
            finally:
                describe_tries(span, exchange.attempts, route.server)
            self._answer = builder.answer(trace_id_of(span))
            describe_answer(span, self._answer)

    async def _tries(self, question: Question, exchange: Exchange, span: trace.Span) -> AsyncGenerator[Event, None]:
        while True:
            try:
                await self._replicas.ready(exchange.left_s())
                with self._replicas.endpoint(exchange.route) as channel:
                    async with aclosing(self._one_try(channel, question, exchange, span)) as events:
                        async for event in events:
                            yield event
                return
            except VScanError as error:
                wait_s = exchange.failed(error)
            await self._pause(wait_s)

    async def _pause(self, seconds: float) -> None:
        self._call = pause = self._replicas.pause(seconds)  # as a call, it ends when the stream is closed
        try:
            await pause
        except asyncio.CancelledError:
            pause.cancel()
            raise_if_closed(self._is_closed())
            raise

    async def _one_try(
        self, channel: grpc.aio.Channel, question: Question, exchange: Exchange, span: trace.Span
    ) -> AsyncGenerator[Event, None]:
        raise_if_closed(self._is_closed())  # while addresses were looked up
        request = _messages.generate_request(question, exchange.form)
        metadata = (*affinity_metadata(exchange.route.key), *self._bearer.metadata())
        left_s = exchange.sending(request.ByteSize())
        stub = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        with within(span):
            self._call = stub.Generate(request, timeout=left_s, metadata=metadata)
        try:
            async for message in self._call:
                exchange.accepted()
                if (event := _messages.event_from_proto(message)) is not None:
                    yield event
        except grpc.RpcError as error:
            raise_if_closed(self._is_closed())
            raise error_from_rpc(error) from error
        except asyncio.CancelledError:
            raise_if_closed(self._is_closed())
            raise
        finally:
            self._call.cancel()

    def _is_closed(self) -> bool:
        return self._closed or self._client_is_closed()
