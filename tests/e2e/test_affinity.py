"""Two real decoders over one encoder and one Redis: the second question about an image meets the rows of the first one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.asking import OTHER_PICTURE, PICTURE
from tests.support.decoder import in_process_decoder
from tests.support.encoder import running_encoder
from tests.support.gateway import in_process_gateway, openai_client, question
from tests.support.redis_server import RedisServer
from tests.support.until import until
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan_client import AsyncClient, Place, SamplingSpec

SHORT = SamplingSpec(max_new_tokens=2, ignore_eos=True)


class Watched:
    """A decoder, and the rows of the first segment that its prompts found in the KV cache."""

    def __init__(self, encoder_address: str, settings: dict[str, Any]) -> None:
        self._start = partial(in_process_decoder, encoder_address, **settings)
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(tracer_provider=provider)
        self.address = ""
        self.life = AsyncExitStack()

    async def start(self) -> None:
        """At the same address as before, if it was there before."""
        again: dict[str, Any] = {"bind": self.address} if self.address else {}
        self.address = (await self.life.enter_async_context(self._start(telemetry=self.telemetry, **again))).address
        self.exporter.clear()  # what warmed it up

    @property
    def reused_rows(self) -> list[int]:
        prefills = [span for span in self.exporter.get_finished_spans() if span.name == names.SPAN_PREFILL]
        return [span.attributes[names.ATTR_REUSED_ROWS][0] for span in prefills if span.attributes]


@asynccontextmanager
async def two_decoders() -> AsyncIterator[dict[str, Watched]]:
    with RedisServer() as redis:
        async with AsyncExitStack() as stack:
            both: dict[str, Any] = {"redis_url": redis.url, "redis_timeout_ms": 30_000}
            encoder = await stack.enter_async_context(running_encoder(**both))
            decoders = [Watched(encoder.address, both), Watched(encoder.address, both)]
            for each in decoders:
                await stack.enter_async_context(each.life)
                await each.start()
            yield {each.address: each for each in decoders}


async def test_the_second_question_about_an_image_finds_its_prefix_and_the_next_decoder_its_tokens() -> None:
    async with two_decoders() as decoders, AsyncClient(server=list(decoders)) as client:
        for picture in (PICTURE, OTHER_PICTURE):
            first = await client.ask(picture, "w7 w8", sampling=SHORT)
            home = decoders[first.client.server]
            assert home.reused_rows[-1] == 0
            before = {address: len(each.reused_rows) for address, each in decoders.items()}
            second = await client.ask(picture, "w9 w10", sampling=SHORT)
            assert second.client.server == home.address
            # The system text and the image, up to the last whole block.
            assert home.reused_rows[-1] > first.usage.visual_tokens / 2
            assert [each.usage.reused_prompt_tokens for each in (first, second)] == [0, home.reused_rows[-1]]
            # Behind the pruning layer the image's rows were not there.
            assert 0 < (second.usage.reused_prompt_tokens_average or 0) < home.reused_rows[-1]
            assert {address: len(each.reused_rows) for address, each in decoders.items()} == before | {
                home.address: before[home.address] + 1
            }
        await home.life.aclose()
        third = await client.ask(OTHER_PICTURE, "w11", sampling=SHORT)
        assert third.client.server != home.address
        assert [image.place for image in third.images] == [Place.REDIS]  # no encoder ran again, and no bytes were sent
        assert third.client.sent_bytes < 500


async def test_the_gateway_does_too_and_goes_on_while_a_decoder_is_away() -> None:
    async with (
        two_decoders() as decoders,
        in_process_gateway(",".join(decoders)) as gateway,
        openai_client(gateway.address, "unused") as client,
    ):

        async def ask(picture: bytes, text: str, **more: Any) -> Any:
            asked = question(text, picture)
            return await client.chat.completions.create(model="llava15", messages=asked, max_tokens=2, **more)

        def asked() -> dict[str, int]:
            return {address: len(each.reused_rows) for address, each in decoders.items()}

        for picture in (PICTURE, OTHER_PICTURE):
            before = asked()
            told = [await ask(picture, text) for text in ("w7 w8", "w9 w10", "w7 w9")]
            (home,) = [each for address, each in decoders.items() if asked()[address] != before[address]]
            assert asked() == before | {home.address: before[home.address] + 3}
            assert [each.usage.prompt_tokens_details.cached_tokens for each in told] == home.reused_rows[-3:]
            assert home.reused_rows[-3] == 0 < home.reused_rows[-2]
        stream = await ask(OTHER_PICTURE, "w7", stream=True, n=4, extra_body={"ignore_eos": True, "max_tokens": 400})
        await anext(aiter(stream))
        await home.life.aclose()
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code in ("unavailable", "cancelled")
        before = asked()
        elsewhere = await ask(OTHER_PICTURE, "w11")
        assert elsewhere.vscan["images"][0]["place"] == "redis"
        assert asked()[home.address] == before[home.address]
        await home.start()
        await until(_more(home, partial(ask, OTHER_PICTURE, "w12")), what="the picture's decoder to be asked again")


def _more(home: Watched, ask: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[bool]]:
    async def is_asked() -> bool:
        await ask()
        return bool(home.reused_rows)

    return is_asked
