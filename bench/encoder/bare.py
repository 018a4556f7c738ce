"""A gRPC service that does nothing: what a reply of some size costs on this machine, whoever sends it.

As a program, `python -m bench.encoder.bare BYTES`, it serves and prints its port.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

_SERVICE, _METHOD = "vscan.bench.Bare", "Reply"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def bare_calls_ms(reply_bytes: int, request: bytes, calls: int) -> list[float]:
    """Milliseconds of so many calls, one after the other, to a process of its own over loopback."""
    with _serving(reply_bytes) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_UNLIMITED) as channel:
            call: Any = channel.unary_unary(f"/{_SERVICE}/{_METHOD}", None, None)
            await call(request, wait_for_ready=True, timeout=60)
            return [await _timed_ms(call, request) for _ in range(calls)]


async def _timed_ms(call: Any, request: bytes) -> float:
    began = time.perf_counter()
    await call(request)
    return (time.perf_counter() - began) * 1000


@contextmanager
def _serving(reply_bytes: int) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", __name__, str(reply_bytes)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


async def _serve(reply_bytes: int) -> None:
    reply = os.urandom(reply_bytes)  # zeros would all be one page of memory

    async def answer(request: bytes, context: Any) -> bytes:
        return reply

    server = grpc.aio.server(options=_UNLIMITED)
    handlers = {_METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
