"""Decoders asked through the SDK: prompts cold and hot, alone and beside answers, and steps by the number of sequences."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.capacity.measuring.probe import Speed, probe
from bench.capacity.measuring.questions import Sample, mean, picture, question, sampled, so_many, trimmed
from bench.capacity.services import Services
from vscan_client import AsyncClient, TextDelta

WORDS = 8  # of a usual question
_LENGTHS = (4, 64, 256)  # words of other ones
_BATCHES = (1, 2, 4, 8)
_STEP_ROUNDS = 5
_BESIDE, _LONG = 4, 700
_ANSWER = 48
_LEAST_WEIGHT = 0.1
_FIRST = 8  # tokens after which all answers are under way


@dataclass(slots=True)
class DecoderMeasured:
    """Samples by kind; steps and prompts in milliseconds."""

    usual: dict[str, list[Sample]] = field(default_factory=dict)  # "encoded", "redis", "hot"
    cold_ms: dict[int, float] = field(default_factory=dict)  # by rows of the prompt
    hot_ms: dict[int, float] = field(default_factory=dict)
    step_ms: dict[int, float] = field(default_factory=dict)
    client_token_ms: float = 0.0  # of its processor time
    engine_weight: float = 1.0
    speed: Speed = field(default_factory=lambda: Speed(0.0, 0.0))
    beside_ms: float = 0.0  # of a step with a usual hot prompt and `_BESIDE` answers
    alone_ms: float = 0.0  # of such a prompt, measured in turn with those

    @property
    def shared_ms(self) -> float:
        """What a prompt's step does not cost beside others."""
        return max(0.0, self.step_ms[_BESIDE] + self.alone_ms - self.beside_ms)


async def measure_decoders(services: Services, rounds: int) -> DecoderMeasured:
    """Two decoders, the second one only to find in Redis what the first one had encoded."""
    measured, seeds = DecoderMeasured(), itertools.count(2_000_000)
    first, second = services.addresses
    async with AsyncClient(server=first) as client, AsyncClient(server=second) as other:
        for one in (client, other):
            for _ in range(3):
                await one.ask(picture(next(seeds)), question(0, WORDS), sampling=so_many(4))
        probes = [await probe(services)]
        await _places(services, client, other, measured, rounds, seeds)
        probes.append(await probe(services))
        await _lengths(services, client, measured, rounds, seeds)
        # In turn, so that a slow moment of the machine does not make one batch slow.
        steps = [{batch: await _steps(client, batch, seeds) for batch in _BATCHES} for _ in range(_STEP_ROUNDS)]
        measured.step_ms = {batch: trimmed([one[batch] for one in steps]) for batch in _BATCHES}
        probes.append(await probe(services))
        await _beside(services, client, measured, rounds, seeds)
    probes.append(await probe(services))
    # The machine's speed all the while, not at the end alone.
    measured.speed = Speed(
        statistics.fmean(each.decoders_ms for each in probes), statistics.fmean(each.others_ms for each in probes)
    )
    return measured


async def _places(
    services: Services,
    client: AsyncClient,
    other: AsyncClient,
    measured: DecoderMeasured,
    rounds: int,
    seeds: itertools.count[int],
) -> None:
    for number in range(3 * rounds):
        image = picture(next(seeds))
        for kind, who, text in (("encoded", client, 1), ("redis", other, 2), ("hot", client, 3)):
            sample = await sampled(services, who, image, question(3 * number + text, WORDS))
            measured.usual.setdefault(kind, []).append(sample)
    rows = measured.usual["hot"][0].answer.usage.prompt_tokens
    measured.cold_ms[rows] = mean([*measured.usual["encoded"], *measured.usual["redis"]], _prompt_ms)
    measured.hot_ms[rows] = mean(measured.usual["hot"], _prompt_ms)


async def _lengths(
    services: Services, client: AsyncClient, measured: DecoderMeasured, rounds: int, seeds: itertools.count[int]
) -> None:
    for words in _LENGTHS:
        times: dict[bool, list[Sample]] = {False: [], True: []}
        for number in range(rounds):
            image = picture(next(seeds))
            for hot in (False, True):
                text = question(100 + 2 * number + hot, words)
                times[hot].append(await sampled(services, client, image, text))
        rows = times[False][0].answer.usage.prompt_tokens
        measured.cold_ms[rows] = mean(times[False], _prompt_ms)
        measured.hot_ms[rows] = mean(times[True], _prompt_ms)


async def _steps(client: AsyncClient, batch: int, seeds: itertools.count[int]) -> float:
    """From one token to the next while all answers are under way."""
    images = [picture(next(seeds)) for _ in range(batch)]
    await asyncio.gather(*(client.ask(image, question(7, WORDS), sampling=so_many(1)) for image in images))
    arrivals = await asyncio.gather(*(_arrivals(client, image, number) for number, image in enumerate(images)))
    begin, end = max(times[_FIRST] for times in arrivals), min(times[-1] for times in arrivals)
    counts = [sum(begin < moment <= end for moment in times) for times in arrivals]
    return (end - begin) / statistics.mean(counts) * 1e3


async def _arrivals(client: AsyncClient, image: bytes, number: int) -> list[float]:
    times = []
    async with client.stream(image, question(200 + number, WORDS), sampling=so_many(_ANSWER)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                times += [time.perf_counter()] * len(event.tokens)
    return times


async def _beside(
    services: Services, client: AsyncClient, measured: DecoderMeasured, rounds: int, seeds: itertools.count[int]
) -> None:
    images = [picture(next(seeds)) for _ in range(rounds)]
    alone, longer, beside = [], [], []
    for number, image in enumerate(images):
        await client.ask(image, question(300 + number, WORDS), sampling=so_many(1))
        alone.append(await sampled(services, client, image, question(400 + number, WORDS)))
        longer.append(await sampled(services, client, image, question(450 + number, WORDS), tokens=_ANSWER))
    async with _answers_under_way(client, [picture(next(seeds)) for _ in range(_BESIDE)]):
        for number, image in enumerate(images):
            beside.append(await sampled(services, client, image, question(500 + number, WORDS)))
    spent = [mean(some, lambda sample: sample.busy_ms["client"]) for some in (alone, longer)]
    measured.client_token_ms = max(0.0, (spent[1] - spent[0]) / (_ANSWER - 1))
    measured.engine_weight = max(_LEAST_WEIGHT, mean(beside, _other_ms) / mean(alone, _other_ms) - 1)
    measured.alone_ms = mean(alone, _prompt_ms)
    measured.beside_ms = mean(beside, _prompt_ms)


def _prompt_ms(sample: Sample) -> float:
    return sample.answer.timings.prefill_ms


def _other_ms(sample: Sample) -> float:
    """Until the first token, beside the prompt's step and the wait for it: what the event loop does."""
    timings = sample.answer.timings
    return sample.server_first_ms - timings.prefill_ms - timings.queue_ms


@asynccontextmanager
async def _answers_under_way(client: AsyncClient, images: Sequence[bytes]) -> AsyncIterator[None]:
    streams = [client.stream(image, question(600, WORDS), sampling=so_many(_LONG)) for image in images]
    for stream in streams:
        async for event in stream:
            if isinstance(event, TextDelta):
                break

    async def read(stream: object) -> None:
        async for _ in stream:  # type: ignore[attr-defined]
            pass

    readers = [asyncio.create_task(read(stream)) for stream in streams]
    try:
        yield
        if any(reader.done() for reader in readers):
            raise RuntimeError("an answer ended before what was to be measured beside it")
    finally:
        for stream in streams:
            await stream.aclose()
        await asyncio.gather(*readers, return_exceptions=True)
