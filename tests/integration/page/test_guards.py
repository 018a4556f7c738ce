"""Who may call the page's server, and what its answers allow a browser."""

import asyncio
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest

from page_service.config import PageSettings
from page_service.server import running_page
from tests.support.client_decoder import ScriptedDeployment
from tests.support.pages import events, form, page_of
from vscan.errors import StartupError

IMAGE = b"the bytes of an image"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7080", "127.0.0.1.evil.example", "", "[::1", "a@evil.example"])
async def test_another_name_is_refused(host: str, page: httpx2.AsyncClient) -> None:
    for path in ("/", "/state", "/app.js"):
        response = await page.get(path, headers={"host": host})
        assert response.status_code in (400, 403), path
    assert (await page.post("/ask", files=form("q", IMAGE), headers={"host": host})).status_code in (400, 403)


async def test_names_of_this_machine_are_taken(page: httpx2.AsyncClient) -> None:
    for host in ("localhost", "LOCALHOST:7080", "127.0.0.1:1", "[::1]:7080"):
        assert (await page.get("/", headers={"host": host})).status_code == 200, host


async def test_a_name_may_be_allowed(address: str) -> None:
    async with page_of(address, allowed_hosts=("pages.example",)) as page:
        assert (await page.get("/", headers={"host": "pages.example:443"})).status_code == 200
        assert (await page.get("/", headers={"host": "other.example"})).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_other_sites_may_not_ask(
    headers: dict[str, str], page: httpx2.AsyncClient, deployment: ScriptedDeployment
) -> None:
    response = await page.post("/ask", files=form("q", IMAGE), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")
    assert deployment.requests == []


async def test_the_page_itself_may_ask(page: httpx2.AsyncClient) -> None:
    own = {"origin": str(page.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert (await page.post("/ask", files=form("q", IMAGE), headers=own)).status_code == 200


async def test_every_answer_is_bounded_to_this_origin(page: httpx2.AsyncClient) -> None:
    answers = [await page.get(path) for path in ("/", "/app.js", "/state", "/nowhere")]
    answers.append(await page.get("/", headers={"host": "evil.example"}))
    answers.append(await page.post("/ask", files=form("q", IMAGE)))
    for response in answers:
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
        assert "server" not in response.headers


async def test_other_methods_are_told_which_there_are(page: httpx2.AsyncClient) -> None:
    for method, path, allowed in (("POST", "/", "GET, HEAD"), ("OPTIONS", "/ask", "POST"), ("GET", "/ask", "POST")):
        response = await page.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (405, "no_such_method")
        assert ", ".join(sorted(response.headers["allow"].split(", "))) == allowed
        assert "access-control-allow-methods" not in response.headers
    head = await page.head("/app.js")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len((await page.get("/app.js")).content))


async def test_a_fault_that_nobody_foresaw_says_nothing_of_itself(
    page: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("/etc/secrets")

    monkeypatch.setattr("page_service.telling.started", fault)
    ((name, told),) = events((await page.post("/ask", files=form("q", IMAGE))).text)
    assert (name, told["message"]) == ("failed", "The page's server failed.")
    monkeypatch.setattr("page_service.health.Health.state", fault)
    response = await page.get("/state")
    assert (response.status_code, response.json()["error"]["message"]) == (500, "The page's server failed.")
    assert response.headers["content-security-policy"]
    assert caplog.text.count("RuntimeError: /etc/secrets") == 2


async def test_what_a_proxy_may_have_read_otherwise_is_refused(page: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(page.base_url.host, page.base_url.port)
    writer.write(b"POST /ask HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 400 " in (await reader.read())  # and the connection ends
    writer.close()


async def test_a_head_that_comes_at_once_is_bounded_too(page: httpx2.AsyncClient) -> None:
    assert (await page.get("/?" + "x" * 40_000, headers={"x": "y" * 40_000})).status_code in (400, 431)
    assert (await page.get("/?" + "x" * 40_000, headers={"x": "y" * 20_000})).status_code == 200


async def test_who_names_no_host_is_refused(page: httpx2.AsyncClient) -> None:
    for head in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\nhost: localhost\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(page.base_url.host, page.base_url.port)
        writer.write(head)
        assert (await reader.read()).split(b" ")[1] in (b"400", b"403"), head
        writer.close()


@pytest.mark.parametrize(
    "path", ["/../config.py", "/..%2fconfig.py", "/%2e%2e/config.py", "/static/app.js", "//etc/passwd", "/a.py", "/docs"]
)
async def test_nothing_but_its_own_files_is_served(path: str, page: httpx2.AsyncClient) -> None:
    response = await page.get(path)
    assert response.status_code == 404


async def test_its_files_name_no_other_origin_and_have_no_inline_script(page: httpx2.AsyncClient) -> None:
    index = (await page.get("/")).text
    assert "style=" not in index
    assert "<script>" not in index
    assert not re.search(r"<[^>]* on\w+=", index)
    for name in sorted(entry.name for entry in (files("page_service") / "static").iterdir()):
        text = (await page.get(f"/{name}")).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, name
        assert "https://" not in text, name
        assert "innerHTML" not in text, name


async def test_bodies_are_bounded(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    async def told(**given: object) -> tuple[int, str, str]:
        response = await page.post("/ask", **given)  # type: ignore[arg-type]
        error = response.json()["error"]
        return response.status_code, error["code"], error["field"]

    async def chunks() -> object:
        yield b"x" * 5000

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert await told(files=form("q", b"x" * 5000)) == (413, "too_large", "files")
    assert await told(content=chunks(), headers=kind) == (413, "too_large", "files")
    assert await told(files=form("q", *[b"x"] * 4)) == (400, "too_many", "files")
    assert await told(files=form("q", *[b"x"] * 5)) == (400, "bad_form", "")
    assert await told(files=form("q", *["image:" + "0" * 64] * 4)) == (400, "too_many", "files")
    assert await told(files=form("q" * 101, IMAGE)) == (400, "too_long", "question")
    assert await told(files=form(" ", IMAGE)) == (400, "no_question", "question")
    assert await told(files=form("q")) == (400, "no_files", "files")
    assert await told(files=form("q", b"")) == (400, "empty_file", "files")
    assert await told(files=form("q", "../../etc/passwd")) == (400, "bad_form", "files")
    assert await told(files=form("q", IMAGE, budget="much")) == (400, "bad_budget", "budget")
    assert await told(files=form("q", IMAGE, budget="avg:0%")) == (400, "bad_budget", "budget")
    assert await told(files=[*form("q", IMAGE), ("x", (None, "y"))]) == (400, "bad_form", "")
    assert await told(content=b"{}", headers={"content-type": "application/json"}) == (415, "not_a_form", "")
    assert await told(content=b"no parts", headers=kind) == (400, "bad_form", "")
    assert await told(files=[*form("q", IMAGE), ("budget", (None, "96"))]) == (400, "bad_form", "")
    assert await told(files=[*form("q", IMAGE), ("question", (None, "p"))]) == (400, "bad_form", "")
    assert deployment.requests == []


def part(name: bytes, value: bytes) -> bytes:
    return b'--x\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value)


WHOLE = part(b"question", b"q") + part(b'visual"; filename="a', b"1") + part(b'visual"; filename="b', b"2") + b"--x--\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("boundary=x", WHOLE[:-4], "cut off"),
        ("boundary=x", WHOLE.replace(b"\nq\r", b"\n\xff\r"), "no UTF-8"),
        ("boundary=x; charset=utf-16", WHOLE.replace(b"\nq\r", b"\n\xff\r"), "no UTF-8"),
        ("boundary=x; charset=undefined", WHOLE.replace(b"question", b"quest\0ion"), "unknown field 'quest\\x00ion'"),
        ("boundary=", WHOLE, "no boundary"),
        ("boundary=" + "x" * 71, WHOLE, "no boundary"),
        ('boundary="x; charset=x', WHOLE, "cannot be read"),
        ("boundary=x", WHOLE.replace(b"content-", b"x: " + b"y" * 5000 + b"\r\ncontent-", 1), "cannot be read"),
        ("boundary=x", WHOLE.replace(b"\nq\r", b"\n" + b"q" * 30_000 + b"\r"), "longer than 4000 characters"),
        ("boundary=x", part(b"f", b"v") * 100 + WHOLE, "Too many fields"),
        ("boundary=x", part(b"f", b"v") * 5000 + WHOLE, "too large"),
    ],
)
async def test_a_form_that_is_none_is_refused_in_words(kind: str, body: bytes, words: str, address: str) -> None:
    async with page_of(address, max_upload_bytes=65_536) as page:
        response = await page.post("/ask", content=body, headers={"content-type": f"multipart/form-data; {kind}"})
        assert response.status_code in (400, 413)
        assert words in response.json()["error"]["message"]


async def test_what_says_nothing_wrong_is_taken(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    body = WHOLE.replace(b"\nq\r", "\nwie groß\r".encode()) + b"what follows a form is no part of it"
    kind = "Multipart/Form-Data; charset=punycode; Boundary=x"
    assert (await page.post("/ask", content=body, headers={"content-type": kind})).status_code == 200
    assert deployment.requests[0].chat.messages[0].parts[2].text == "wie groß"


async def test_a_length_that_is_too_much_is_refused_before_a_byte_has_come(page: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(page.base_url.host, page.base_url.port)
    kind = "content-type: multipart/form-data; boundary=x\r\ncontent-length: 99999999999999999999"
    writer.write(f"POST /ask HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n\r\n".encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_nothing_is_written_to_a_disk(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    async with page_of(address) as page:
        assert "event: finished" in (await page.post("/ask", files=form("q", b"x" * (3 * 1024 * 1024)))).text


async def test_a_body_that_does_not_come_is_not_waited_for(address: str) -> None:
    async with page_of(address, client_patience_seconds=0.05) as page:
        reader, writer = await asyncio.open_connection(page.base_url.host, page.base_url.port)
        kind = "content-type: multipart/form-data; boundary=x\r\ncontent-length: 100"
        writer.write(f"POST /ask HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n\r\n--x\r\n".encode())
        assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, "`tls_cert_file` and `tls_key_file`, or `insecure`"),
        ({"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}, "`tls_client_ca_file`, or `allow_anonymous`"),
    ],
)
async def test_beyond_loopback_it_is_not_open_by_itself(settings: dict[str, Any], missing: str) -> None:
    with pytest.raises(StartupError) as refused:
        async with running_page(PageSettings(bind="0.0.0.0:0", **settings)):
            pass
    assert missing in refused.value.message
