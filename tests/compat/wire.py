"""gRPC without the contract: servers and calls whose messages are bytes. On the event loop, beside services that run in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc
import grpc.aio
from google.rpc import status_pb2

from vscan.rpc.error_details import STATUS_DETAILS_KEY

# How a stub answers: from a method's path and a request, the replies.
Answering = Callable[[str, bytes], Iterable[bytes]]
_OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.max_send_message_length", 2**26)]
_SECONDS = 120
_STREAMING = "/Generate"


class Refused(Exception):
    """How a stub answers that refuses: a status code's name, and the bytes of its `google.rpc.Status`."""

    def __init__(self, code: str, details: bytes) -> None:
        super().__init__(code)
        self.code, self.details = grpc.StatusCode[code], details


class _AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        async def all_replies(request: bytes, context: Any) -> list[bytes]:
            try:
                return list(self._answer(method, request))
            except Refused as refused:
                if refused.details:
                    context.set_trailing_metadata(((STATUS_DETAILS_KEY, refused.details),))
                message = status_pb2.Status.FromString(refused.details).message
                return list(await context.abort(refused.code, message))
            except LookupError as missing:
                return list(await context.abort(grpc.StatusCode.NOT_FOUND, str(missing)))

        async def one(request: bytes, context: Any) -> bytes:
            (reply,) = await all_replies(request, context)
            return reply

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for reply in await all_replies(request, context):
                yield reply

        if method.endswith(_STREAMING):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(one)


@asynccontextmanager
async def serving(answer: Answering) -> AsyncIterator[str]:
    """A server on a free loopback port that answers every method so, NOT_FOUND for a LookupError; its address."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_AnyMethod(answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Wire:
    """Calls one address. Use it in an `async with`."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def call(self, method: str, request: bytes) -> list[bytes]:
        """All replies. Raises grpc.aio.AioRpcError."""
        if method.endswith(_STREAMING):
            return [reply async for reply in self._channel.unary_stream(method, None, None)(request, timeout=_SECONDS)]
        return [await self._channel.unary_unary(method, None, None)(request, timeout=_SECONDS)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)
