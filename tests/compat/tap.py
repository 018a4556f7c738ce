"""Stands before a server and keeps what passes, as bytes. In threads: the services are processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.compat.tape import Call

_OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.max_send_message_length", 2**26)]
_SECONDS = 120


class _PassOn(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, channel: grpc.Channel, tape: list[Call]) -> None:
        self._channel, self._tape = channel, tape

    def service(self, handler_call_details: Any) -> Any:
        # A call with one reply and a stream of one reply are the same on the wire.
        method = handler_call_details.method

        def handle(request: bytes, context: Any) -> Iterator[bytes]:
            call = Call(method, request)
            self._tape.append(call)
            try:
                for reply in self._channel.unary_stream(method, None, None)(request, timeout=_SECONDS):
                    call.replies.append(reply)
                    yield reply
            except grpc.RpcError as failed:
                error: Any = failed  # of a call that was made it is the call, too
                call.code = error.code().name
                context.set_trailing_metadata(error.trailing_metadata() or ())
                context.abort(error.code(), error.details() or "")

        return grpc.unary_stream_rpc_method_handler(handle)


@contextmanager
def tapped(address: str, tape: list[Call]) -> Iterator[str]:
    """The address of a server that passes every call on to another and keeps it."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        server = grpc.server(ThreadPoolExecutor(8), options=_OPTIONS)
        server.add_generic_rpc_handlers((_PassOn(channel, tape),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
