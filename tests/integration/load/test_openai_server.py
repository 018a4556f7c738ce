"""The peer by URL against a real HTTP server that sends what such servers send: odd but legal chunks, and errors."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from studies.load.album import Album, picture
from studies.load.driver import drive
from studies.load.record import Record
from studies.load.targets.openai_server import OpenAiOptions, OpenAiServer
from studies.load.workload import Workload
from tests.support.client_cli import vscan
from tests.support.openai_server import CUT, OpenAiLike, chunk, event, openai_server

STREAM = "text/event-stream; charset=utf-8"
USAGE = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
PLAIN = [
    event(chunk("", role="assistant")),
    event(chunk("a")),
    event(chunk("b")),
    event(chunk("c")),
    event(chunk(finish="length")),
    event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}),
    event("[DONE]"),
]


async def ask(server: OpenAiLike, requests: int = 1, **options: Any) -> list[Record]:
    made = OpenAiOptions(**{"url": server.url, "model": "m", "extra": {}, **options})
    target = OpenAiServer(made, Album(range(2), 16))
    try:
        return await drive(
            target, Workload(requests=requests, images=2, images_per_question=2, answer_tokens=3).asks(), clients=2
        )
    finally:
        await target.close()


async def test_a_request_is_what_the_api_says() -> None:
    with openai_server(lambda body: (200, STREAM, PLAIN)) as server:
        records = await ask(server, requests=3, extra={"ignore_eos": True}, token="secret")
    assert [(each.code, each.prompt_tokens, each.completion_tokens, len(each.content_s)) for each in records] == [
        ("OK", 40, 3, 3)
    ] * 3
    assert all(each.visual_before is None and each.places == () for each in records)
    body = server.bodies[0]
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    sent = {part["image_url"]["url"] for part in content[:2]}
    assert sent == {f"data:image/png;base64,{base64.b64encode(picture(seed, 16)).decode()}" for seed in range(2)}
    wanted = {
        "path": "/v1/chat/completions",
        "model": "m",
        "stream": True,
        "temperature": 0,
        "max_tokens": 3,
        "ignore_eos": True,
    }
    assert wanted.items() <= body.items()
    assert body["stream_options"] == {"include_usage": True}
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("blocks", "pieces", "tokens"),
    [
        # Comments and blank lines between events, lines that end in CR LF, no blank after the colon.
        (
            [
                ": ping\n\n\n",
                'data:{"choices":[{"delta":{"content":"a"}}]}\r\n\r\n',
                event(chunk(finish="stop")),
                event("[DONE]"),
            ],
            1,
            None,
        ),
        # An event that is cut anywhere by the transport, two in one write, and one over two data lines.
        (
            [
                event(chunk("ä"))[:20],
                event(chunk("ä"))[20:] + event(chunk("b")),
                'data: {"choices":\ndata: []}\n\n',
                *PLAIN[4:],
            ],
            2,
            3,
        ),
        # Null content, a delta that is null, no usage, the end and the text in one chunk, no [DONE].
        (
            [
                event({"choices": [{"delta": {"content": None}}]}),
                event({"choices": [{"delta": None}]}),
                event(chunk("a", finish="stop")),
            ],
            1,
            None,
        ),
        # Usage in every chunk: the last one counts. Words for a reasoning that comes first count as pieces.
        (
            [
                event({**chunk(reasoning_content="hm"), "usage": {"completion_tokens": 1}}),
                event({**chunk("a", finish="stop"), "usage": {"completion_tokens": 2}}),
                event("[DONE]"),
            ],
            2,
            2,
        ),
        # A usage that is none.
        ([event(chunk("a")), event({**chunk(finish="stop"), "usage": {"completion_tokens": "many"}})], 1, None),
        ([event(chunk("a")), event({**chunk(finish="stop"), "usage": [3]})], 1, None),
    ],
)
async def test_odd_but_legal_chunks_are_understood(blocks: Sequence[str], pieces: int, tokens: int | None) -> None:
    with openai_server(lambda body: (200, STREAM, blocks)) as server:
        (record,) = await ask(server)
    assert (record.code, record.message, len(record.content_s), record.completion_tokens) == ("OK", "", pieces, tokens)
    assert record.miscounted == (tokens is None or tokens < pieces)


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        ((400, "application/json", ['{"error": "no such field"}']), "INVALID_ARGUMENT", "HTTP 400: "),
        ((401, "application/json", ["{}"]), "UNAUTHENTICATED", "HTTP 401"),
        ((404, "text/plain", ["no model"]), "FAILED_PRECONDITION", "HTTP 404: no model"),
        ((429, "text/plain", ["slow down"]), "RESOURCE_EXHAUSTED", "HTTP 429: slow down"),
        ((500, "text/plain", ["oops"]), "INTERNAL", "HTTP 500: oops"),
        ((503, "text/plain", [""]), "UNAVAILABLE", "HTTP 503"),
        (
            (200, STREAM, [event(chunk("a")), event({"error": {"message": "too long", "code": 400}})]),
            "INVALID_ARGUMENT",
            "too long",
        ),
        ((200, STREAM, [event(chunk("a")), event({"error": "broken"})]), "INTERNAL", "broken"),
        ((200, STREAM, [event("{not json")]), "INTERNAL", "a chunk is not JSON"),
        ((200, STREAM, [event({"choices": "ab"})]), "INTERNAL", "choices are no list of objects"),
        ((200, STREAM, [event({"choices": ["a"]})]), "INTERNAL", "choices are no list of objects"),
        ((200, STREAM, [event({"choices": [{"delta": "a"}]})]), "INTERNAL", "delta is not an object"),
        ((200, STREAM, [event(chunk("a"))]), "INTERNAL", "the stream ended before the answer was whole"),
        ((200, STREAM, [event(chunk("a")), event("[DONE]")]), "INTERNAL", "the stream ended before the answer was whole"),
        ((200, STREAM, [event(chunk("a")), CUT]), "UNAVAILABLE", "RemoteProtocolError"),
        ((200, "application/json", ["{}"]), "INTERNAL", "SSEError"),
    ],
)
async def test_errors_are_those_of_every_other_target(reply: tuple[int, str, Sequence[str]], code: str, says: str) -> None:
    with openai_server(lambda body: reply) as server:
        (record,) = await ask(server)
    assert record.code == code
    assert says in record.message


async def test_a_server_that_is_away_or_says_nothing_is_counted() -> None:
    over = threading.Event()
    with openai_server(lambda body: (200 if over.wait(60) else 500, STREAM, PLAIN)) as server:
        silent = await ask(server, timeout_s=0.1)
        over.set()
    assert [(record.code, record.message) for record in silent] == [
        ("DEADLINE_EXCEEDED", "DeadlineExceeded: no whole answer within 0.1 s")
    ]
    assert [record.code for record in await ask(OpenAiLike(server.reply, server.url))] == ["UNAVAILABLE"]


def test_the_command_puts_load_on_a_peer_alone(tmp_path: Path) -> None:
    report = tmp_path / "load.json"
    with openai_server(
        lambda body: (429, "text/plain", ["busy"]) if "red" in str(body["messages"]) else (200, STREAM, PLAIN)
    ) as server:
        arguments = ("--only-peers", "--peer-url", server.url, "--peer-model", "m", "--image-side", 16, "--warm-up", 0)
        ran = vscan("bench", *arguments, "--requests", 12, "--rate", 500, "--peer-body", '{"seed": 1}', "--json", report)
    (one,) = json.loads(report.read_text())["cases"][0]["configurations"]
    busy = sum("red" in str(body["messages"]) for body in server.bodies)
    assert 0 < busy < 12 == len(server.bodies)
    assert (one["label"], one["peer"], one["answered"], one["failures"]) == ("m", True, 12 - busy, {"RESOURCE_EXHAUSTED": busy})
    assert ran.code == 1
    assert f"{busy} RESOURCE_EXHAUSTED of 12 requests; ResourceExhausted: HTTP 429: busy" in ran.err


def test_a_peer_that_answers_nothing_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    with openai_server(lambda body: (404, "text/plain", ["no such model"])) as server:
        arguments = ("--only-peers", "--peer-url", server.url, "--peer-model", "m", "--image-side", 16, "--warm-up", 2)
        ran = vscan("bench", *arguments, "--json", tmp_path / "load.json")
    assert ran.code == 3
    assert ran.one_line == "vscan: m: none of 2 requests to warm up was answered: FailedPrecondition: HTTP 404: no such model"
    assert len(server.bodies) == 2
    assert not (tmp_path / "load.json").exists()
