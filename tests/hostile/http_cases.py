"""What comes over the gateway's port: bodies that are none, heads that may be read in two ways, callers that leave."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from tests.hostile.case import QUESTION, Case
from tests.hostile.http_talk import CHAT, HttpCase, Talk, abandoned, exchange, half_closed, head, post, question

_BAD, _BODY, _ANY = (400,), "body", None
_SMUGGLED = post(question(QUESTION), close=False)


def http_cases() -> list[Case]:
    """All of them, but for those of other families."""
    return [*_bodies(), *_fields(), *_urls(), *_heads(), *_connections()]


def _case(family: str, name: str, talk: Talk, *statuses: int, param: str | None = _ANY, answers: int = 1) -> HttpCase:
    return HttpCase(family=family, name=name, talk=talk, statuses=statuses or _BAD, param=param, answers=answers)


def _bodies() -> Iterable[Case]:
    """Bytes where JSON should be."""
    family, many = "HTTP bodies", b"1," * 300_000
    for name, body in {
        "empty": b"",
        "a brace": b"{",
        "a list": b"[]",
        "a number": b"7",
        "noise": random.Random(0).randbytes(65_536),
        "zeros": bytes(100_000),
        "UTF-16": json.dumps(question(QUESTION)).encode("utf-16"),
        "UTF-32": json.dumps(question(QUESTION)).encode("utf-32"),
        "not UTF-8": b'{"model": "\xff\xfe"}',
        "half a surrogate pair as UTF-8": b'{"model": "\xed\xa0\x80"}',
        "an overlong slash": b'{"model": "\xc0\xaf"}',
        "100,000 brackets": b"[" * 100_000,
        "objects within objects, 100,000": b'{"a":' * 100_000,
        "60 MB that never end a text": b'{"model": "' + b"a" * 60_000_000,
        "300,000 numbers": b'{"stop_token_ids": [' + many + b"1]}",
        "a number of a million digits": b'{"seed": ' + b"9" * 1_000_000 + b"}",
        "1e400": b'{"temperature": 1e400}',
        "NaN": b'{"temperature": NaN}',
        "a member twice": b'{"model": "a", "model": "b"}',
        "multipart": b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--x--',
        "two objects": b"{}{}",
        "a comment": b"/* */ {}",
    }.items():
        yield _case(family, name, exchange(post(body)), param=_BODY)
    yield _case(family, "65 MiB and a byte", exchange(post(b" " * (64 * 2**20 + 1))), 413)
    yield _case(family, "one that claims 2^63 bytes", exchange(head({"Content-Length": 2**63})), 413)
    yield _case(
        family, "in chunks that never end", exchange(head({"Transfer-Encoding": "chunked"}) + _chunked(b"a" * 2**20) * 65), 413
    )
    yield _case(family, "gzip", exchange(post(b"\x1f\x8b\x08" + bytes(200), {"Content-Encoding": "gzip"})), param=_BODY)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/html",
    ):
        yield _case(family, f"as {kind}", exchange(post(question(QUESTION), {"Content-Type": kind})), 415)


def _fields() -> Iterable[Case]:
    """JSON whose members are not what they should be."""
    family = "HTTP fields"
    bodies: dict[str, tuple[dict[str, Any], str | None]] = {
        "a model of a MB": ({"model": "m" * 10**6}, "model"),
        "a model that is a path": ({"model": "../../../etc/passwd"}, "model"),
        "messages that are a text": ({"messages": "x"}, "messages"),
        "20,000 messages": ({"messages": [{"role": "user", "content": "x"}] * 20_000}, _BODY),
        "20,000 parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 20_000}]}, _BODY),
        "half a surrogate pair": ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        "a role of a MB": ({"messages": [{"role": "r" * 10**6, "content": "x"}]}, "messages[0].role"),
        "a field of a MB": ({"x" * 10**6: 1}, _ANY),
        "a field of control characters": ({"\r\n\x00\x1b[2J": 1}, _ANY),
        "max_tokens 2^70": ({"max_tokens": 2**70}, "max_tokens"),
        "max_tokens 1e308": ({"max_tokens": 1e308}, "max_tokens"),
        "max_tokens true": ({"max_tokens": True}, "max_tokens"),
        "n of 10^300": ({"n": 10**300}, "n"),
        "a seed below zero": ({"seed": -1}, "seed"),
        "10,000 stop strings": ({"stop": ["a"] * 10_000}, "stop"),
        "a stop string of 10 MB": ({"stop": "a" * 10**7}, "stop"),
        "stop strings within lists": ({"stop": [[["a"]]]}, "stop"),
        "top_logprobs 2^40": ({"logprobs": True, "top_logprobs": 2**40}, "top_logprobs"),
        "logit_bias for a million": ({"logit_bias": {str(index): 1 for index in range(100_000)}}, "logit_bias"),
        "a budget of 10^4 digits": ({"vscan": {"budget": "9" * 10_000}}, "vscan.budget"),
        "vscan that is a list": ({"vscan": [1]}, "vscan"),
        "a schema of 60 levels": ({"response_format": _schema(80)}, _BODY),
        "a schema that is no object": ({"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}}, _ANY),
        "__proto__": ({"__proto__": {"admin": True}}, "__proto__"),
    }
    for name, (changes, param) in bodies.items():
        statuses = (404,) if name.startswith("a model") else _BAD
        yield _case(family, name, exchange(post(question(QUESTION) | changes)), *statuses, param=param)


def _schema(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"items": schema}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def _urls() -> Iterable[Case]:
    """Where a picture should be."""
    family, place = "HTTP picture URLs", "messages[0].content[0].image_url.url"
    for name, url in {
        "this machine's": "http://127.0.0.1:9/picture.png",
        "of a cloud's metadata": "http://169.254.169.254/latest/meta-data/",
        "a file": "file:///etc/passwd",
        "a file after blanks": " \n FILE:///etc/passwd",
        "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
        "a script": "javascript:alert(1)",
        "a path": "/etc/passwd",
        "empty": "",
        "without base64": "data:image/png,%89PNG",
        "base64 of a URL's alphabet": "data:image/png;base64,_-_-",
        "base64 with line breaks": "data:image/png;base64,iVBO\nRw0K",
        "base64 without its end": "data:image/png;base64,iVBORw0KG",
        "base64 of half a character": "data:image/png;base64,A",
        "base64 with too much behind it": "data:image/png;base64,AAAA====AAAA",
        "letters of another alphabet": "data:image/png;base64,АААА",
        "a type of a MB": "data:image/" + "x" * 10**6 + ";base64,AAAA",
        "a type of blanks": "data:image/" + " " * 10**6 + ";base64,AAAA",
        "HTML": "data:text/html;base64,PHNjcmlwdD4=",
        "one within another": "data:image/png;base64,data:image/png;base64,AAAA",
    }.items():
        yield _case(family, name, exchange(post(_about(url))), param=place if "MB" not in name else _ANY)
    yield _case(family, "60 MB of A", exchange(post(_about("data:image/png;base64," + "A" * 60_000_000))), param=_ANY)
    yield _case(family, "of 1,000 pictures", exchange(post(_about(*["data:image/png;base64,AAAA"] * 1000))), param="messages")


def _about(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return question(QUESTION) | {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}]}


def _heads() -> Iterable[Case]:
    """Heads that lie, or that a proxy before this service would read otherwise."""
    family, body = "HTTP heads", json.dumps(question(QUESTION)).encode()
    length = {"Content-Length": len(body)}
    plain = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    end = b"\r\nConnection: close\r\n\r\n" + body
    size = str(len(body)).encode()
    sized = plain + b"Content-Length: " + size + b"\r\n"
    for name, raw in {
        "a length beside chunks": head(length | {"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n" + _SMUGGLED,
        "chunks beside a length of 0": head({"Transfer-Encoding": "chunked", "Content-Length": 0}) + b"0\r\n\r\n" + _SMUGGLED,
        "two lengths": plain + b"Content-Length: 4\r\nContent-Length: " + size + end,
        "two lengths in one": plain + b"Content-Length: 4, " + size + end,
        "a length below zero": plain + b"Content-Length: -1" + end,
        "a length with a plus": plain + b"Content-Length: +" + size + end,
        "a length in hexadecimal": plain + b"Content-Length: 0x" + size + end,
        "a length of Arabic digits": plain + "Content-Length: ٤٢".encode() + end,
        "chunks twice": plain + b"Transfer-Encoding: chunked, chunked" + end,
        "chunks that are not": plain + b"Transfer-Encoding: xchunked" + end,
        "chunks and identity": plain + b"Transfer-Encoding: identity, chunked" + end,
        "a blank before the colon": plain + b"Content-Length : " + size + end,
        "a folded header": sized + b"X-A: b\r\n Content-Length: 4" + end,
        "a bare carriage return": sized + b"X-A: b\rContent-Length: 4" + end,
        "a NUL": sized + b"X-A: \x00" + end,
        "a header without a colon": sized + b"nonsense" + end,
        "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "no host": b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n",
        "a chunk of a minus": plain + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + body,
        "a chunk of no number": plain + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + body,
        "HTTP/9.9": b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "HTTP/0.9": b"GET /v1/models\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        "the beginning of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "noise": random.Random(1).randbytes(65_536),
        "a line of 100 KB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "a header of 100 KB": sized + b"X-A: " + b"a" * 100_000 + end,
        "20,000 headers": sized + b"a: b\r\n" * 20_000 + b"X-A: b" + end,
    }.items():
        statuses = {"HTTP/2": (400, 403), "HTTP/9.9": (200, 400), "a folded header": (200, 400)}.get(
            name, (400, 403) if "host" in name else (400, 431)
        )
        yield _case(family, name, exchange(raw), *statuses, 0, answers=2 if name == "HTTP/2" else 1)
    others: tuple[tuple[str, dict[str, Any], tuple[int, ...]], ...] = (
        ("another site's name", length | {"Host": "evil.example"}, (403,)),
        ("another site's page", length | {"Origin": "https://evil.example"}, (403,)),
        ("a name with a port of letters", length | {"Host": "localhost:x"}, (400, 403, 200)),
        ("a name in brackets", length | {"Host": "[::1"}, (400, 403)),
        ("an expectation of nonsense", length | {"Expect": "the-impossible"}, (200, 417)),
        ("an upgrade", length | {"Upgrade": "websocket"}, (200,)),
        ("a token of 60 KB", length | {"Authorization": "Bearer " + "a" * 60_000}, (400, 401, 200)),
        ("a token of blanks", length | {"Authorization": "Bearer    "}, (401,)),
        ("a trace that is none", length | {"traceparent": "00-" + "f" * 500}, (200,)),
        ("1,000 words of baggage", length | {"baggage": ",".join(f"k{n}=v" for n in range(1000))}, (200,)),
    )
    for name, more, allowed in others:
        yield _case(family, name, exchange(head(more) + body), *allowed)
    for name, chunk in {
        "a chunk of 2^64": b"10000000000000000\r\n" + body,
        "an extension of a chunk, 100 KB": b"4;" + b"a" * 100_000 + b"\r\n",
        "a chunk without its end": b"4000\r\n" + body,
        "trailers without end": b"0\r\n" + b"a: b\r\n" * 20_000,
    }.items():
        yield _case(family, name, half_closed(head({"Transfer-Encoding": "chunked"}) + chunk), 400, 0)
    yield _case(family, "Redis", half_closed(b"*1\r\n$8\r\nFLUSHALL\r\n"), 400, 0)
    for method in ("OPTIONS", "TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "G" * 1000):
        yield _case(family, f"method {method[:8]}", exchange(head({}, method=method)), 400, 405)
    for path in (
        "/../../etc/passwd",
        "//evil.example/",
        "/v1/models/%00",
        "/v1/models/%2e%2e%2f",
        "http://evil.example/",
        "*",
        "/" * 9000,
    ):
        yield _case(family, f"path {path[:20]}", exchange(head({}, method="GET", path=path)), 400, 403, 404)


def _connections() -> Iterable[Case]:
    """Callers that leave, or send more than they should."""
    family, whole = "HTTP connections", post(question(QUESTION))
    stream = post(question(QUESTION) | {"stream": True, "ignore_eos": True, "max_tokens": 200})
    alone = post(question(QUESTION), close=False)
    yield _case(family, "nothing", abandoned(b""), 0)
    yield _case(family, "half a head", abandoned(whole[:40]), 0)
    yield _case(family, "half a body", abandoned(whole[:-40]), 0)
    yield _case(family, "half a body, and then no more", half_closed(whole[:-40]), 0)
    yield _case(family, "a question, and then no more", half_closed(whole), 200, 0)
    yield _case(family, "an answer that nobody reads", abandoned(stream), 0)
    yield _case(family, "300 connections that say nothing", abandoned(b"", times=300), 0)
    yield _case(family, "50 answers that nobody reads", abandoned(stream, times=50), 0)
    yield _case(family, "20 questions at once in a row", exchange(alone * 19 + whole), 200, answers=20)
    yield _case(family, "a question behind noise", exchange(b"\r\n\r\n" + whole), 200, 400)
    yield _case(family, "noise behind a question", exchange(whole + random.Random(2).randbytes(30_000)), 200, 0)
    yield _case(family, "a MB behind a question", abandoned(alone + b"GET / HTTP/1.1\r\n" * 70_000), 0)
    yield _case(
        family,
        "a body that is promised and does not come",
        abandoned(head({"Content-Length": 99, "Expect": "100-continue"})),
        0,
    )


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"
