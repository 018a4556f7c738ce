"""OpenAI's own client at the gateway, in front of a whole deployment with two tenants."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

import embedded_model
from gateway_service.wiring import RunningGateway
from studies.load.album import Album
from studies.load.driver import drive
from studies.load.targets.openai_server import OpenAiOptions, OpenAiServer
from studies.load.workload import Workload
from tests.support.certificates import Authority
from tests.support.encoder import png
from tests.support.gateway import image_part, in_process_gateway, openai_client, question
from tests.support.identities import IdentitiesFile
from tests.support.load_generators import requests
from tests.support.otlp_collector import OtlpCollector
from tests.support.service_process import ServiceProcess
from tests.support.stack import Stack, in_process_stack
from tests.support.until import until
from vscan.errors import Cancelled
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry
from vscan_client import AsyncClient, Message, SamplingSpec

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHECKPOINT = Path(embedded_model.checkpoint_dir())
IMAGE = png(3, (96, 96))
WORDS = "what color is the circle"
CLOSED = (ConnectionResetError, asyncio.IncompleteReadError)
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
LONG = {"ignore_eos": True, "max_tokens": 400}


@dataclass(frozen=True)
class Deployment:
    """Encoder, decoder and gateway; `shop` and `lab` are tenants."""

    stack: Stack
    gateway: RunningGateway
    people: IdentitiesFile
    shop: AsyncOpenAI

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}/v1"

    def client(self, name: str, **options: Any) -> AsyncOpenAI:
        return openai_client(self.gateway.address, self.people.tokens.get(name, name), **options)

    async def post(self, body: Any, **options: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.people.tokens['shop']}", **options.pop("headers", {})}
        async with httpx2.AsyncClient() as http:
            return await http.post(f"{self.url}/chat/completions", json=body, headers=headers, **options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    people = IdentitiesFile(tmp_path_factory.mktemp("people"))
    people.add("shop", "shop")
    people.add("lab", "lab")
    people.add("hasty", "hasty")
    people.limit("hasty", requests_per_second=0.001, burst=3)
    people.add("decoder", on_behalf_of=True)
    own = {"identities_file": people.path, "encoder_token_file": people.token_file("decoder"), "model_alias": "small"}
    async with (
        in_process_stack(checkpoint=CHECKPOINT, encoder={"identities_file": people.path}, decoder=own) as stack,
        in_process_gateway(
            stack.decoder_address,
            require_token=True,
            max_body_bytes=200_000,
            describe_seconds=3600,
        ) as gateway,
        openai_client(gateway.address, people.tokens["shop"]) as shop,
    ):
        yield Deployment(stack, gateway, people, shop)


async def test_an_answer_is_the_sdks_whole_or_streamed(deployed: Deployment) -> None:
    async with AsyncClient(server=deployed.stack.decoder_address, token=deployed.people.tokens["shop"]) as sdk:
        expected = await sdk.ask(IMAGE, WORDS)
        described = (await sdk.describe()).decoder
    whole: Any = await deployed.shop.chat.completions.create(model="small", messages=question(WORDS, IMAGE))
    (choice,) = whole.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", expected.text, "stop")
    assert whole.model == "small"
    assert whole.system_fingerprint == f"fp_{described.pair_fingerprint.hex()[:16]}"
    usage = expected.usage
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert whole.usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert whole.usage.visual_tokens == {"before": 144, "after_encoder": 24, "after_pruning": 8, "average": 16.0}
    assert whole.vscan["images"][0]["sha256"] == expected.images[0].sha256.hex()

    stream = await deployed.shop.chat.completions.create(
        model="small", messages=question(WORDS, IMAGE), stream=True, stream_options={"include_usage": True}
    )
    chunks: list[Any] = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected.text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{chunks[-1].vscan['request_id']}"}
    assert whole._request_id == whole.vscan["request_id"]
    assert stream.response.headers["x-request-id"] == chunks[-1].vscan["request_id"]


@pytest.mark.parametrize("tool", requests(WORDS, IMAGE))
async def test_load_generators_and_evaluators_are_served_as_they_are(deployed: Deployment, tool: str) -> None:
    sent = requests(WORDS, IMAGE)[tool]
    said = await deployed.post({"model": "small", **sent.body}, headers=sent.headers)
    assert said.status_code == 200, said.text
    if not sent.body.get("stream"):
        assert said.json()["choices"][0]["message"]["content"]
        return
    events = [event.removeprefix("data: ") for event in said.text.split("\n\n") if event]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    asked_usage = sent.body.get("stream_options", {}).get("include_usage", False)
    assert [chunk["choices"] == [] for chunk in chunks] == [False] * (len(chunks) - asked_usage) + [True] * asked_usage
    assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    if asked_usage:
        assert chunks[-1]["usage"]["completion_tokens"] == (sent.tokens or chunks[-1]["usage"]["completion_tokens"])
    so_far = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
    assert so_far == sorted(so_far)
    assert len(so_far) > 1 or "continuous_usage_stats" not in sent.body.get("stream_options", {})


async def test_what_load_generators_look_for_first_is_there(deployed: Deployment) -> None:
    headers = {"authorization": f"Bearer {deployed.people.tokens['shop']}"}
    async with httpx2.AsyncClient(base_url=f"http://{deployed.gateway.address}", headers=headers) as http:
        assert (await http.get("/health")).status_code == 200  # GuideLLM
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "small"  # vLLM, SGLang, GuideLLM


async def test_our_own_load_is_answered_whole(deployed: Deployment) -> None:
    token, extra = deployed.people.tokens["shop"], {"ignore_eos": True}
    album = Album(range(3), 32)
    target = OpenAiServer(OpenAiOptions(url=deployed.url, model="small", extra=extra, token=token), album)
    try:
        records = await drive(target, Workload(requests=8, images=3, answer_tokens=4).asks(), clients=3)
    finally:
        await target.close()
    assert [(record.code, record.completion_tokens) for record in records] == [("OK", 4)] * 8
    assert all(record.prompt_tokens for record in records)


async def test_several_turns_and_the_options_are_those_of_the_sdk(deployed: Deployment) -> None:
    sampling = {"temperature": 2.0, "top_p": 0.99, "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    async with AsyncClient(server=deployed.stack.decoder_address, token=deployed.people.tokens["shop"]) as sdk:
        turns = [Message.user(IMAGE, WORDS), Message.assistant("red"), Message.user("what shape is left of it")]
        spec = SamplingSpec(max_new_tokens=5, n=3, top_k=40, min_p=0.0001, repetition_penalty=1.9, **sampling)  # type: ignore[arg-type]
        expected = await sdk.chat(turns, sampling=spec)
    messages: list[Any] = [
        *question(WORDS, IMAGE),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "what shape is left of it"},
    ]
    own = {"vscan": {"top_k": 40, "min_p": 0.0001, "repetition_penalty": 1.9}}
    asked: dict[str, Any] = {"model": "small", "messages": messages, "n": 3, "max_tokens": 5, "extra_body": own, **sampling}
    whole = await deployed.shop.chat.completions.create(**asked)
    texts = [sample.text for sample in expected.samples]
    assert len(set(texts)) > 1, "samples that differ tell that they are not mixed up"
    assert [choice.message.content for choice in whole.choices] == texts
    streamed = ["", "", ""]
    async for chunk in await deployed.shop.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


async def test_log_probabilities_have_the_tokens_texts(deployed: Deployment) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": question(WORDS, IMAGE), "logprobs": True, "top_logprobs": 3}
    whole = (await deployed.shop.chat.completions.create(**asked)).choices[0]
    assert whole.logprobs
    assert whole.logprobs.content
    first = whole.logprobs.content[0]
    assert first.token == whole.message.content
    assert bytes(first.bytes or []) == first.token.encode()
    assert [each.logprob for each in first.top_logprobs] == sorted((e.logprob for e in first.top_logprobs), reverse=True)
    assert len(first.top_logprobs) == 3
    streamed = [
        token
        async for chunk in await deployed.shop.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or ()
    ]
    assert [(token.token, token.logprob) for token in streamed] == [(t.token, t.logprob) for t in whole.logprobs.content]


def form(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


async def test_an_answer_keeps_to_a_json_schema_or_a_regular_expression(deployed: Deployment) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": question(WORDS, IMAGE), "max_tokens": 40}
    told = await deployed.shop.chat.completions.create(**asked, response_format=form({"enum": [1, 2]}))
    assert json.loads(told.choices[0].message.content or "") in (1, 2)
    told = await deployed.shop.chat.completions.create(**asked, extra_body={"vscan": {"regex": "yes|no"}})
    assert told.choices[0].message.content in ("yes", "no")
    # This model's vocabulary are words: it has no brace.
    refusals: list[Any] = [{"type": "json_object"}, form({"type": "object"}), form({"type": "nonsense"})]
    for refused in refusals:
        with pytest.raises(openai.BadRequestError) as caught:
            await deployed.shop.chat.completions.create(**asked, response_format=refused)
        assert caught.value.param == "response_format"
        assert "sampling" not in caught.value.message


async def test_budgets_and_reports_are_asked_for_under_a_key_of_their_own(deployed: Deployment) -> None:
    own = {"budget": "36", "keep": "12", "report_kept": True, "priority": 3}
    told: Any = await deployed.shop.chat.completions.create(
        model="small", messages=question(WORDS, IMAGE), extra_body={"vscan": own}
    )
    assert told.usage.visual_tokens == {"before": 144, "after_encoder": 36, "after_pruning": 12, "average": 24.0}
    assert len(told.vscan["images"][0]["kept"]["kept_indices"]) == 36
    assert len(told.vscan["pruning"][0]["survivors"][0]) == 12


async def test_the_model_is_listed_and_another_one_is_not_found(deployed: Deployment) -> None:
    (model,) = (await deployed.shop.models.list()).data
    assert model.id == "small"
    assert await deployed.shop.models.retrieve("small") == model
    for refused in (
        deployed.shop.models.retrieve("other/model"),
        deployed.shop.chat.completions.create(model="gpt-4o", messages=question("x")),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await refused
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
         "messages[0].content[0].image_url.url", "never fetch"),
        ({"messages": [{"role": "user", "content": [image_part(b"no image")]}]},
         "messages[0].content[0].image_url.data", "not an image"),
        ({"temperature": 3}, "temperature", "limit 0 to 2"),
        ({"n": 99}, "n", "limit"),
        ({"max_tokens": 0}, "max_tokens", "0"),
        ({"vscan": {"budget": "0"}}, "vscan.budget", "0"),
        ({"vscan": {"budget": "1000"}}, "vscan.budget", "tokens of a tile"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ],
)  # fmt: skip
async def test_a_bad_field_is_named_as_the_body_has_it(
    deployed: Deployment, changes: dict[str, Any], param: str, said: str
) -> None:
    body = {"messages": question(WORDS, IMAGE)} | changes
    with pytest.raises(openai.BadRequestError) as caught:
        await deployed.shop.chat.completions.create(model="small", messages=body.pop("messages"), extra_body=body)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param.removesuffix(".data"))
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"


async def test_tenants_are_the_decoders(deployed: Deployment) -> None:
    image = png(77, (96, 96))
    async with deployed.client("lab") as lab:
        first: Any = await deployed.shop.chat.completions.create(model="small", messages=question(WORDS, image))
        other: Any = await lab.chat.completions.create(model="small", messages=question(WORDS, image))
        again: Any = await lab.chat.completions.create(model="small", messages=question(WORDS, image))
    places = [told.vscan["images"][0]["place"] for told in (first, other, again)]
    assert places == ["encoded", "encoded", "memory"], "what one tenant has sent is unknown to the other"
    for name in ("a-token-of-nobodys", "not a token"):
        async with deployed.client(name) as stranger:
            for refused in (
                stranger.chat.completions.create(model="small", messages=question(WORDS)),
                stranger.models.list(),
            ):
                with pytest.raises(openai.AuthenticationError) as caught:
                    await refused
                assert caught.value.code == "invalid_api_key"


async def test_nothing_of_a_strangers_body_is_read(deployed: Deployment) -> None:
    host, port = deployed.gateway.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nAuthorization: Bearer nobody\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_client_for_another_caller_shares_the_connections_and_nothing_that_was_sent(deployed: Deployment) -> None:
    image = png(78, (96, 96))
    shop = AsyncClient(server=deployed.stack.decoder_address, token=deployed.people.tokens["shop"])
    lab = shop.with_token(deployed.people.tokens["lab"])
    for client in (shop, lab):
        first = await client.ask(image, WORDS)
        assert (first.client.attempts, first.client.sent_bytes > len(image)) == (1, True)
    assert (await shop.ask(image, WORDS)).client.sent_bytes < len(image)
    assert deployed.people.tokens["lab"] not in repr(lab.__dict__)
    await lab.aclose()
    with pytest.raises(Cancelled):
        await shop.describe()


async def test_a_tenants_rate_is_told_with_when_to_come_back(deployed: Deployment) -> None:
    # Its first request takes two calls: the gateway shows a new token to the decoder before it reads more. What the model is it
    # knows from another's.
    await deployed.shop.models.list()
    async with deployed.client("hasty") as hasty:
        await hasty.chat.completions.create(model="small", messages=question(WORDS), max_tokens=1)
        asked = [hasty.chat.completions.create(model="small", messages=question(WORDS), max_tokens=1) for _ in range(3)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        refused = [error for error in told if isinstance(error, openai.RateLimitError)]
    assert len(refused) == 2
    assert int(refused[0].response.headers["retry-after"]) >= 1
    assert int(refused[0].response.headers["retry-after-ms"]) > 0
    assert refused[0].code == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_leaves_ends_the_work(deployed: Deployment, stream: bool) -> None:
    body = {"model": "small", "messages": question(WORDS, IMAGE), "stream": stream, "n": 2, **LONG}
    asking = asyncio.create_task(deployed.post(body))
    await until(lambda: deployed.stack.decoder.engine.figures.running > 0, what="the decoder to be at work")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: deployed.stack.decoder.engine.figures.running == 0, what="the decoder to be idle")
    assert asking.cancelled(), "it had not come to its end"


async def test_a_caller_that_leaves_is_missed_though_it_had_sent_more(deployed: Deployment) -> None:
    body = json.dumps({"model": "small", "messages": question(WORDS, IMAGE), "n": 2, **LONG}).encode()
    head = f"Authorization: Bearer {deployed.people.tokens['shop']}\r\nContent-Type: application/json\r\n"
    sent = f"{POST}{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    host, port = deployed.gateway.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    await until(lambda: deployed.stack.decoder.engine.figures.running > 0, what="the decoder to be at work")
    own = writer.get_extra_info("sockname")
    all_of_them: set[Any] = set(deployed.gateway.server._server.server_state.connections)
    (connection,) = [each for each in all_of_them if each.client == own]
    writer.write(sent[:-1])
    await until(lambda: bool(connection.conn.trailing_data[0]), what="more to have come")
    writer.transport.abort()
    await until(lambda: deployed.stack.decoder.engine.figures.running == 0, what="the decoder to be idle")
    await until(lambda: connection.cycle.disconnected)
    assert not connection.cycle.response_started, "it had not come to its end"


async def test_a_token_takes_half_of_the_places_and_not_those_of_others(deployed: Deployment) -> None:
    async with in_process_gateway(deployed.stack.decoder_address, require_token=True, max_concurrent_requests=4) as gateway:
        host, port = gateway.address.split(":")
        head = f"{POST}Authorization: Bearer {deployed.people.tokens['shop']}\r\nContent-Type: application/json\r\n"
        writers = []
        for _ in range(2):  # which say that a body comes, are told to go on, and send none
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"{head}Content-Length: 99\r\nExpect: 100-continue\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 100")
            writers.append(writer)
        asked: dict[str, Any] = {"model": "small", "messages": question(WORDS), "max_tokens": 1}
        shop, lab = (openai_client(gateway.address, deployed.people.tokens[name]) for name in ("shop", "lab"))
        async with shop, lab:
            with pytest.raises(openai.RateLimitError, match="2 requests of this caller"):
                await shop.chat.completions.create(**asked)
            assert (await lab.chat.completions.create(**asked)).choices
            for writer in writers:
                writer.close()


async def test_bodies_are_bounded_and_must_be_json(deployed: Deployment) -> None:
    async def too_many() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    headers = {"authorization": f"Bearer {deployed.people.tokens['shop']}", "content-type": "application/json"}
    url = f"{deployed.url}/chat/completions"
    async with httpx2.AsyncClient() as http:
        said = await http.post(url, content=b"x" * 300_000, headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (413, "request_too_large")
        said = await http.post(url, content=too_many(), headers=headers)
        assert said.status_code == 413
        for content in (b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": NaN}', b'{"a":' * 80 + b"1" + b"}" * 80):
            said = await http.post(url, content=content, headers=headers)
            assert (said.status_code, said.json()["error"]["param"]) == (400, "body"), content[:20]
        said = await http.post(url, content=b"{}", headers=headers | {"content-type": "text/plain"})
        assert said.status_code == 415
        said = await http.post(f"{deployed.url}/embeddings", json={}, headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (404, "not_found")
        said = await http.get(url, headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_only_names_of_this_machine_are_answered_on_loopback(deployed: Deployment) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        said = await deployed.post({}, headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (403, "unknown_host")
    said = await deployed.post({}, headers={"host": "localhost:8000", "origin": "http://127.0.0.1:3000"})
    assert said.json()["error"]["param"] == "model"


async def test_a_head_that_does_not_come_ends_its_connection(deployed: Deployment) -> None:
    async with in_process_gateway(deployed.stack.decoder_address, header_timeout_seconds=0.2, max_connections=1) as gateway:
        host, port = gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: local")
        over, over_writer = await asyncio.open_connection(host, int(port))
        with pytest.raises(CLOSED):
            await over.readexactly(1)  # one connection too many
        with pytest.raises(CLOSED):
            await reader.readexactly(1)  # it was closed from the other side
        for each in (writer, over_writer):
            each.close()


async def test_a_decoder_that_takes_any_token_is_not_asked(tmp_path: Path) -> None:
    async with (
        in_process_stack() as stack,
        in_process_gateway(stack.decoder_address, require_token=True) as strict,
        in_process_gateway(stack.decoder_address, max_concurrent_requests=1) as open_one,
        httpx2.AsyncClient() as http,
    ):
        async with openai_client(strict.address, "any") as client:
            with pytest.raises(openai.InternalServerError, match="takes any token"):
                await client.chat.completions.create(model="llava15", messages=question("w7"))
            assert (await http.get(f"http://{strict.address}/readyz")).status_code == 503
        assert (await http.get(f"http://{open_one.address}/readyz")).status_code == 200
        async with openai_client(open_one.address, "unused") as client:  # without identities nothing of it is asked for
            told = await client.chat.completions.create(model="llava15", messages=question("w7", IMAGE), max_tokens=2)
            assert told.usage is not None
            assert told.usage.completion_tokens == 2
            busy = asyncio.create_task(
                client.chat.completions.create(model="llava15", messages=question("w7"), extra_body=LONG, n=8)
            )
            await until(lambda: stack.decoder.engine.figures.running > 0)
            with pytest.raises(openai.RateLimitError, match="1 requests are being served"):
                await client.models.list()
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
    async with openai_client(open_one.address, "unused") as client:
        with pytest.raises(openai.APIConnectionError):
            await client.models.list()


async def test_a_decoder_that_goes_ends_a_stream_with_an_error_event() -> None:
    async with (
        in_process_stack() as stack,
        in_process_gateway(stack.decoder_address) as gateway,
        openai_client(gateway.address, "unused") as client,
    ):
        stream = await client.chat.completions.create(model="llava15", messages=question("w7"), stream=True, extra_body=LONG)
        await anext(aiter(stream))
        await stack.decoder.server.stop()
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code in ("unavailable", "cancelled")
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model="llava15", messages=question("w7"))
        assert refused.value.status_code == 503


async def test_a_gateway_that_stops_ends_streams_with_an_error_event(deployed: Deployment) -> None:
    async with openai_client("127.0.0.1:1", deployed.people.tokens["shop"]) as client:
        async with in_process_gateway(deployed.stack.decoder_address) as gateway:
            client.base_url = f"http://{gateway.address}/v1"
            stream = await client.chat.completions.create(model="small", messages=question(WORDS), stream=True, extra_body=LONG)
            await anext(aiter(stream))
        with pytest.raises(openai.APIError, match="the gateway is stopping"):
            async for _ in stream:
                pass
    await until(lambda: deployed.stack.decoder.engine.figures.running == 0, what="the decoder to be idle")


async def test_callers_without_a_token_are_at_the_decoder_what_the_gateway_is(deployed: Deployment) -> None:
    own = deployed.people.token_file("lab")
    async with (
        in_process_gateway(deployed.stack.decoder_address, decoder_token_file=own) as known,
        in_process_gateway(deployed.stack.decoder_address) as stranger,
        httpx2.AsyncClient() as http,
    ):
        body = {"model": "small", "messages": question(WORDS), "max_tokens": 2}
        for gateway, status in ((known, 200), (stranger, 401), (deployed.gateway, 401)):
            said = await http.post(f"http://{gateway.address}/v1/chat/completions", json=body)
            assert said.status_code == status
            # A decoder that wants to know who asks is there.
            assert (await http.get(f"http://{gateway.address}/readyz")).status_code == 200


async def test_a_trace_goes_on_from_the_callers_header(deployed: Deployment) -> None:
    with OtlpCollector() as collector:
        telemetry = setup_telemetry("vscan-gateway", TelemetrySettings(otlp_endpoint=collector.endpoint))
        try:
            async with in_process_gateway(deployed.stack.decoder_address, telemetry=telemetry) as gateway:
                trace_id = "0af7651916cd43dd8448eb211c80319c"
                headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
                async with openai_client(gateway.address, deployed.people.tokens["shop"], default_headers=headers) as client:
                    told: Any = await client.chat.completions.create(model="small", messages=question(WORDS, IMAGE))
                assert told.vscan["trace_id"] == trace_id
        finally:
            await asyncio.to_thread(telemetry.shutdown)
        spans = {span.name: span for span in collector.trace(trace_id)}
        server = spans["POST /v1/chat/completions"]
        assert spans["ask"].parent_id == server.span_id
        assert server.parent_id == "b7ad6b7169203331"
        assert "http.server.request.duration" in collector.metric_names or "http.server.duration" in collector.metric_names
        said = " ".join(str(value) for span in collector.spans for value in span.attributes.values())
        assert deployed.people.tokens["shop"] not in said


async def test_a_process_drains_and_serves_over_tls(deployed: Deployment, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost", "127.0.0.1")
    settings = {
        "decoder_address": deployed.stack.decoder_address,
        "tls_cert_file": certificate.cert_file,
        "tls_key_file": certificate.key_file,
    }
    process = ServiceProcess("gateway", tmp_path, settings)
    try:
        await asyncio.to_thread(process.start)
        http = httpx2.AsyncClient(verify=_trusting(authority))
        client = AsyncOpenAI(
            base_url=f"https://{process.address}/v1", api_key=deployed.people.tokens["shop"], max_retries=0, http_client=http
        )
        async with client:
            stream = await client.chat.completions.create(
                model="small", messages=question(WORDS, IMAGE), stream=True, extra_body=LONG | {"max_tokens": 200}
            )
            await anext(aiter(stream))
            stopping = asyncio.create_task(asyncio.to_thread(process.stop))
            tokens = [chunk async for chunk in stream]
            assert tokens[-1].choices[0].finish_reason == "length", "an answer under way is not cut"
            assert await stopping == 0
        assert deployed.people.tokens["shop"] not in process.log.read_text()
        assert "POST /v1/chat/completions status=200" in process.log.read_text()
    finally:
        await asyncio.to_thread(process.stop)


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.ca_file)
