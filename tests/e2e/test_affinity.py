"""Two real decoders over one encoder and one Redis: the second question about an image meets the rows of the first one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.asking import OTHER_PICTURE, PICTURE
from tests.support.decoder import in_process_decoder
from tests.support.encoder import running_encoder
from tests.support.redis_server import RedisServer
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan_client import AsyncClient, Place, SamplingSpec

SHORT = SamplingSpec(max_new_tokens=2, ignore_eos=True)


class Watched:
    """A decoder, and the rows of the first segment that its prompts found in the KV cache."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(tracer_provider=provider)
        self.address = ""
        self.life = AsyncExitStack()

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
            decoders = [Watched(), Watched()]
            for each in decoders:
                await stack.enter_async_context(each.life)
                running = in_process_decoder(encoder.address, telemetry=each.telemetry, **both)
                each.address = (await each.life.enter_async_context(running)).address
                each.exporter.clear()  # what warmed it up
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
            assert {address: len(each.reused_rows) for address, each in decoders.items()} == before | {
                home.address: before[home.address] + 1
            }
        await home.life.aclose()
        third = await client.ask(OTHER_PICTURE, "w11", sampling=SHORT)
        assert third.client.server != home.address
        assert [image.place for image in third.images] == [Place.REDIS]  # no encoder ran again, and no bytes were sent
        assert third.client.sent_bytes < 500
