"""Questions through the page's own server: what is streamed, what is sent on, and that leaving ends the work."""

import asyncio
import hashlib
import socket

import httpx2
import pytest

from page_service.config import PageSettings
from page_service.server import running_page
from tests.support.client_decoder import SURVIVORS, TOKENS_AFTER, TOKENS_BEFORE, ScriptedDeployment
from tests.support.pages import events, form, page_of
from tests.support.until import until
from vscan.errors import InternalError, InvalidArgument, MissingImages, ResourceExhausted, Unavailable
from vscan.v1 import visual_tokens_pb2
from vscan_client import Client

IMAGE = b"the bytes of an image"


async def test_an_answer_comes_as_events_and_is_the_sdks(page: httpx2.AsyncClient, address: str) -> None:
    response = await page.post("/ask", files=form("what is it", IMAGE))
    assert response.headers["content-type"].startswith("text/event-stream")
    told = events(response.text)
    assert [name for name, _ in told if name != "delta"] == ["started", "finished"]
    (image,) = told[0][1]["images"]
    assert (image["tokens_before"], image["tokens_after"], image["place"]) == (TOKENS_BEFORE, TOKENS_AFTER, "encoded now")
    assert image["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    finished = told[-1][1]
    with Client(server=address) as client:
        answer = await asyncio.to_thread(client.ask, IMAGE, "what is it", report_kept=True)
    assert finished["text"] == answer.text == "".join(data["text"] for name, data in told if name == "delta")
    assert finished["pruning"] == [{"layer": 4, "before": TOKENS_AFTER, "after": SURVIVORS, "survivors": [[0, 2]]}]


async def test_patches_come_as_rectangles(page: httpx2.AsyncClient) -> None:
    response = await page.post("/ask", files=form("what is it", IMAGE))
    (view,) = events(response.text)[0][1]["images"][0]["views"]
    assert (view["rows"], view["columns"], view["window"]) == (2, 3, [0, 0, 1, 1])
    assert [(mark["sign"], mark["row"], mark["column"]) for mark in view["marks"]] == [("local", 1, 2), ("global", 2, 3)]
    assert view["marks"][0]["box"] == [0.33333, 0, 0.33333, 0.5]
    assert [len(mark["merged"]) for mark in view["marks"]] == [2, 2]


async def test_several_files_and_names_go_on_in_order(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    await page.post("/ask", files=form("first", IMAGE))
    name = hashlib.sha256(IMAGE).hexdigest()
    response = await page.post("/ask", files=form("both", b"another", f"image:{name}"))
    images = events(response.text)[0][1]["images"]
    assert [image["place"] for image in images] == ["encoded now", "found in the decoder's memory"]
    parts = [part.image for part in deployment.requests[-1].chat.messages[0].parts if part.WhichOneof("content") == "image"]
    assert [(part.data, part.sha256.hex()) for part in parts] == [(b"another", ""), (b"", name)]


async def test_a_budget_goes_on_and_none_keeps_everything(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    await page.post("/ask", files=form("q", IMAGE, budget="total:256"))
    await page.post("/ask", files=form("q", IMAGE, budget="none"))
    chosen, plain = deployment.requests
    assert chosen.reduction.budget.total_tokens == 256
    assert plain.reduction.method == visual_tokens_pb2.REDUCTION_METHOD_NONE
    assert chosen.report_kept
    assert plain.report_kept


@pytest.mark.parametrize("when", ["before the first event", "in the middle"])
async def test_leaving_ends_the_call(when: str, page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    hold = deployment.hold_before if when == "before the first event" else deployment.hold_after_first_text
    hold.clear()
    async with page.stream("POST", "/ask", files=form("q", IMAGE)) as response:
        assert response.status_code == 200
        assert await asyncio.to_thread(deployment.entered.acquire, timeout=30)
        if hold is deployment.hold_after_first_text:
            async for line in response.aiter_lines():
                if line == "event: delta":
                    break
    assert await asyncio.to_thread(deployment.cancelled.acquire, timeout=30)


async def test_places_are_given_back(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    deployment.hold_before.clear()
    asked = [asyncio.create_task(page.post("/ask", files=form("q", IMAGE))) for _ in range(2)]
    await until(lambda: deployment.running == 2)
    third = await page.post("/ask", files=form("q", IMAGE))
    assert (third.status_code, third.json()["error"]["code"]) == (429, "busy")
    deployment.hold_before.set()
    assert [(await response).status_code for response in asked] == [200, 200]
    for wrong in range(3):
        assert (await page.post("/ask", files=form("", IMAGE))).status_code == 400, wrong
    assert events((await page.post("/ask", files=form("q", IMAGE))).text)[-1][0] == "finished"


async def test_files_of_all_questions_have_a_bound_until_their_answers_end(
    address: str, deployment: ScriptedDeployment
) -> None:
    deployment.hold_before.clear()
    async with page_of(address, max_upload_bytes=4096, max_uploads_bytes=6000) as page:
        first = asyncio.create_task(page.post("/ask", files=form("q", b"x" * 3000)))
        await until(lambda: deployment.running == 1)
        for body in (form("q", b"y" * 3000), None):
            kind = {} if body else {"content-type": "multipart/form-data; boundary=x", "transfer-encoding": "chunked"}
            second = await page.post("/ask", files=body, content=None if body else b"0\r\n\r\n", headers=kind)
            assert (second.status_code, second.json()["error"]["code"]) == (429, "busy"), "one of unknown length counts whole"
        small = asyncio.create_task(page.post("/ask", files=form("q", b"z")))
        await until(lambda: deployment.running == 2)
        deployment.hold_before.set()
        for asked in (first, small):
            assert events((await asked).text)[-1][0] == "finished"
        assert events((await page.post("/ask", files=form("q", b"y" * 3000))).text)[-1][0] == "finished"


async def test_a_browser_that_stops_reading_ends_its_connection(address: str, deployment: ScriptedDeployment) -> None:
    """Its question is echoed, more of it than the buffers between take."""
    told = PageSettings(
        bind="127.0.0.1:0",
        decoder_address=(address,),
        max_question_chars=5_000_000,
        client_patience_seconds=1,
        drain_seconds=0,
    )
    async with running_page(told) as page:
        assert page.server._listener
        page.server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = page.address.split(":")
        small.connect((host, int(port)))
        _, writer = await asyncio.open_connection(sock=small)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = httpx2.Request("POST", f"http://{page.address}/ask", files=form(" ".join(["w" * 8_000] * 50), IMAGE))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        writer.write(f"POST /ask HTTP/1.1\r\n{head}\r\n".encode() + await request.aread())
        await until(lambda: len(deployment.requests) == 1)
        await until(lambda: page.server.connections == 0 and deployment.running == 0)
        writer.close()


async def test_a_decoder_that_ends_in_the_middle_is_told(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    deployment.fail_after_first_text = Unavailable("the engine has ended")
    told = events((await page.post("/ask", files=form("q", IMAGE))).text)
    assert [name for name, _ in told] == ["started", "delta", "failed"]
    assert (told[-1][1]["code"], told[-1][1]["message"]) == ("away", "The decoder cannot answer now: the engine has ended.")
    deployment.describe_fails_with.append(Unavailable("the encoder is away"))
    assert (await page.get("/state")).json()["decoder"]["words"].endswith(": the encoder is away")


async def test_a_video_is_asked_about_as_one(page: httpx2.AsyncClient, deployment: ScriptedDeployment) -> None:
    clip = b"\0\0\0\x18ftypmp42" + b"a clip"
    told = events((await page.post("/ask", files=form("q", clip))).text)
    assert told[-1][1]["text"].startswith("0 image(s), 1 video(s)")
    assert told[0][1]["images"][0]["frames"] == [0.0, 0.5]
    name = told[0][1]["images"][0]["sha256"]
    again = events((await page.post("/ask", files=form("q", f"video:{name}"))).text)
    assert (again[0][1]["images"][0]["place"], again[-1][0]) == ("found in the decoder's memory", "finished")


async def test_an_encoder_and_a_redis_that_are_away_are_told_beside_a_decoder_that_is_there(address: str) -> None:
    async with page_of(address, encoder_address=("127.0.0.1:1",), redis_address="127.0.0.1:1") as page:
        state = (await page.get("/state")).json()
        assert [state[name]["state"] for name in ("decoder", "encoder", "redis")] == ["ready", "away", "away"]
        assert events((await page.post("/ask", files=form("q", IMAGE))).text)[-1][0] == "finished"


@pytest.mark.parametrize(
    ("error", "code", "field", "words"),
    [
        (
            InvalidArgument("messages[0].parts[0].image", "1,600 MP", limit="50 MP"),
            "refused",
            "files",
            "Refused: file 1: 1,600 MP (limit: 50 MP).",
        ),
        (InvalidArgument("reduction.budget.tokens_per_tile", "900"), "refused", "budget", "900"),
        (InvalidArgument("messages[0].parts[1].text", "too long"), "refused", "question", "Refused: too long."),
        (InvalidArgument("messages", "too many tokens"), "refused", "", "too many tokens"),
        (InternalError("internal error", trace_id="ab" * 16), "failed", "", "ab" * 16),
    ],
)
async def test_errors_say_next_to_what_they_belong(
    error: InvalidArgument, code: str, field: str, words: str, page: httpx2.AsyncClient, deployment: ScriptedDeployment
) -> None:
    deployment.fail_with.append(error)
    ((name, told),) = events((await page.post("/ask", files=form("q", IMAGE))).text)
    assert (name, told["code"], told["field"]) == ("failed", code, field)
    assert words in told["message"]


async def test_a_name_that_is_gone_is_told_as_such(page: httpx2.AsyncClient) -> None:
    ((name, told),) = events((await page.post("/ask", files=form("q", "image:" + "ab" * 32))).text)
    assert (name, told["code"]) == ("failed", "missing_files")


async def test_a_busy_decoder_is_asked_again_before_anybody_is_told(
    page: httpx2.AsyncClient, deployment: ScriptedDeployment
) -> None:
    deployment.fail_with.append(ResourceExhausted("full", retry_delay_ms=1))
    assert events((await page.post("/ask", files=form("q", IMAGE))).text)[-1][0] == "finished"
    deployment.fail_with.append(MissingImages([hashlib.sha256(IMAGE).digest()]))
    assert events((await page.post("/ask", files=form("q", IMAGE))).text)[-1][0] == "finished"


async def test_a_decoder_that_is_away_is_told_in_words() -> None:
    async with page_of("127.0.0.1:1") as page:
        ((name, told),) = events((await page.post("/ask", files=form("q", IMAGE))).text)
        assert (name, told["code"]) == ("failed", "away")
        assert told["message"] == "The decoder at 127.0.0.1:1 does not answer."
        assert "vscan up" in told["advice"]
        state = (await page.get("/state")).json()
        assert state["decoder"]["words"] == "127.0.0.1:1 does not answer"
        assert (state["decoder"]["state"], state["encoder"]["state"], state["redis"]["state"]) == (
            "away",
            "not told",
            "not told",
        )


async def test_the_strip_says_what_is_there(page: httpx2.AsyncClient) -> None:
    state = (await page.get("/state")).json()
    assert (state["decoder"]["state"], state["encoder"]["state"]) == ("ready", "ready")
    assert "scripted" in state["decoder"]["words"]
    assert state["decoder"]["max_images"] == 16
    assert state["limits"] == {"max_files": 3, "max_upload_bytes": 4096, "max_question_chars": 100}
