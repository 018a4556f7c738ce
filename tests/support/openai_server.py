"""A small server on a real socket that speaks the OpenAI chat API's stream, and sends whatever chunks a test wants.

with openai_server(["data: {...}", ...]) as server:
    server.url, server.bodies
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class OpenAiLike:
    """Answers each request with `reply`: a status, and the blocks of its body, each written on its own."""

    reply: Callable[[dict[str, Any]], tuple[int, str, Sequence[str]]]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def openai_server(reply: Callable[[dict[str, Any]], tuple[int, str, Sequence[str]]]) -> Iterator[OpenAiLike]:
    """Serves on loopback from a thread. A block that is `CUT` ends the connection in the middle of the body."""
    told = OpenAiLike(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.bodies.append({"path": self.path, **body})
            told.headers.append(dict(self.headers.items()))
            status, kind, blocks = told.reply(body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for block in blocks:
                if block == CUT:
                    self.close_connection = True
                    return
                self.wfile.write(f"{len(block.encode()):x}\r\n".encode() + block.encode() + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CUT = "\0cut"


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


def chunk(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    delta = {} if content is None else {"content": content}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {**delta, **more}, "finish_reason": finish}]}
