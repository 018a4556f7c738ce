"""gRPC's own calls, health and reflection: anybody may make them, so they are few at once and soon over."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from vscan.rpc.handlers import Context, Continuation, Handler, behavior_of, is_infrastructure

MAX_CALLS = 64
_PATIENCE_SECONDS = 10.0


class InfrastructureGate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Bounds them without what bounds the others: who takes all these places keeps nobody from the services.

    gRPC begins a call that has one request when it has come, and counts it before: here each is a stream, which is begun at
    once, and is given up if its request does not come.
    """

    def __init__(self, max_calls: int = MAX_CALLS, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._max_calls = max_calls
        self._patience_seconds = patience_seconds
        self._running = 0

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Wraps the handler of such a call."""
        handler = await continuation(handler_call_details)
        if handler is None or not is_infrastructure(handler_call_details.method):
            return handler

        async def serve(requests: Any, context: Context) -> None:
            if self._running >= self._max_calls:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._max_calls} such calls are being served")
            self._running += 1
            try:
                await self._serve(handler, requests, context)
            except TimeoutError:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing came within {self._patience_seconds:g} s")
            finally:
                self._running -= 1

        return grpc.stream_stream_rpc_method_handler(
            serve,  # type: ignore[arg-type]
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _serve(self, handler: Handler, requests: Any, context: Context) -> None:
        behavior = behavior_of(handler)
        if handler.request_streaming:  # reflection: a few questions, one after the other
            async with asyncio.timeout(self._patience_seconds):
                async for reply in behavior(requests, context):
                    await context.write(reply)
            return
        async with asyncio.timeout(self._patience_seconds):
            request = await context.read()
        if request is grpc.aio.EOF:  # type: ignore[attr-defined]
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no request was sent")
        reply = await behavior(request, context)
        if not handler.response_streaming:
            async with asyncio.timeout(self._patience_seconds):
                await context.write(reply)
