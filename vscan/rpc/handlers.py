"""Wrapping method handlers: what every server interceptor here is made of.

grpc.aio serves one call in one task. Replies that come out of nested async generators break that when the caller leaves while
one is being sent: the generators hang at their `yield`, and the garbage collector closes them later, in another task and
context. So `StreamInOneTask` writes the replies itself. Within it nothing waits at a `yield` but for being closed at once.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

_LARGE_BYTES = 2**20  # of a reply

Context = Any  # grpc.aio.ServicerContext, or OpenTelemetry's proxy of one
Handler = Any  # grpc.RpcMethodHandler
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call being served."""

    method: str  # "/vscan.v1.Decoder/Generate"
    context: Context


def is_infrastructure(method: str) -> bool:
    """Whether a method is gRPC's own (health, reflection): not traced, logged, counted or gated."""
    return method.startswith("/grpc.")


def is_polled(method: str) -> bool:
    """Whether other services ask it again and again by themselves: not worth a log line each time, nor a trace of its own."""
    return method.endswith("/Describe")


def behavior_of(handler: Handler) -> Callable[..., Any]:
    """The function that serves the call."""
    if handler.response_streaming:
        return handler.stream_stream if handler.request_streaming else handler.unary_stream  # type: ignore[no-any-return]
    return handler.stream_unary if handler.request_streaming else handler.unary_unary  # type: ignore[no-any-return]


def with_behavior(handler: Handler, behavior: Callable[..., Any], *, raw: bool = False) -> Handler:
    """A handler of the same kind that runs `behavior`; with `raw` that one takes and gives bytes instead of messages."""
    if handler.response_streaming:
        make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    else:
        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(  # type: ignore[operator]
        behavior,
        request_deserializer=None if raw else handler.request_deserializer,
        response_serializer=None if raw else handler.response_serializer,
    )


class AroundInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """An interceptor that is one context manager around each call of the services, unary or streamed.

    If `around` swallows an exception the call ends with the status that was set on its context.
    """

    @abstractmethod
    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Entered before the call is served, left after its last reply."""

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Wraps the handler that the inner interceptors gave."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or is_infrastructure(method):
            return handler
        wrap = self._streamed if handler.response_streaming else self._unary
        return with_behavior(handler, wrap(method, behavior_of(handler)))

    def _unary(self, method: str, behavior: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def serve(request: Any, context: Context) -> Any:
            async with self.around(Call(method, context)):
                return await behavior(request, context)
            return None

        return serve

    def _streamed(self, method: str, behavior: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self.around(Call(method, context)), aclosing(behavior(request, context)) as replies:
                async for reply in replies:
                    yield reply

        return serve


class StreamInOneTask(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Writes a stream's replies, and looks to its caller like a stream without any.

    Args:
        patience_seconds: longest wait for the caller to take a reply. Then its call is over: it would keep its place, and what
            it has been given, for as long as its connection lives. Large replies keep their place as long as that: gRPC holds
            them until they are read or the connection ends, and so much memory has to be counted.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Wraps a streaming handler."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming or is_infrastructure(handler_call_details.method):
            return handler
        behavior = behavior_of(handler)

        async def write_replies(request: Any, context: Context) -> AsyncIterator[Any]:
            async with aclosing(behavior(request, context)) as replies:
                async for reply in replies:
                    await self._write(context, reply)
            return
            yield  # unreachable: this makes it the async generator that the instrumentation library iterates over

        return with_behavior(handler, write_replies)

    async def _write(self, context: Context, reply: Any) -> None:
        try:
            async with asyncio.timeout(None if len(reply) > _LARGE_BYTES else self._patience_seconds):
                await context.write(reply)
        except TimeoutError as error:  # a status would wait behind the replies that are not read
            raise asyncio.CancelledError from error
        except grpc.aio.InternalError as error:  # the connection has gone; that the call is cancelled will be known in a moment
            raise asyncio.CancelledError from error
