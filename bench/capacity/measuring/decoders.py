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
_USUAL, _TURNS = 3, 2  # of a kind in each round
_BESIDE, _LONG = 4, 700
_ANSWER = 48
_LEAST_WEIGHT = 0.1
_FIRST = 8  # tokens after which all answers are under way


@dataclass(frozen=True, slots=True)
class DecoderMeasured:
    """Samples by kind; steps and prompts in milliseconds."""

    usual: dict[str, list[Sample]]  # "encoded", "redis", "hot"
    cold_ms: dict[int, float]  # by rows of the prompt
    hot_ms: dict[int, float]
    step_ms: dict[int, float]  # by sequences
    client_token_ms: float  # of its processor time
    engine_weight: float
    speed: Speed
    beside_ms: float  # of a step with a usual hot prompt and `_BESIDE` answers
    alone_ms: float  # of such a prompt, measured in turn with those

    @property
    def shared_ms(self) -> float:
        """What a prompt's step does not cost beside others."""
        return max(0.0, self.step_ms[_BESIDE] + self.alone_ms - self.beside_ms)


async def measure_decoders(services: Services, rounds: int) -> DecoderMeasured:
    """Two decoders, the second one only to find in Redis what the first one had encoded.

    Every round asks something of each kind, the probe too: the machine's speed changes within minutes, and what was measured
    at another speed than the rest would be wrong by as much.
    """
    taken, probes = _Taken(), []
    first, second = services.addresses
    async with AsyncClient(server=first) as client, AsyncClient(server=second) as other:
        for one in (client, other):
            for _ in range(3):
                await one.ask(picture(next(taken.seeds)), question(0, WORDS), sampling=so_many(4))
        for number in range(rounds):
            probes.append(await probe(services))
            await _places(services, client, other, taken, number)
            await _lengths(services, client, taken, number)
            await _steps(client, taken)
            await _beside(services, client, taken, number)
    speed = Speed(trimmed([each.decoders_ms for each in probes]), trimmed([each.others_ms for each in probes]))
    return taken.measured(speed)


@dataclass(slots=True)
class _Taken:
    """Samples of the rounds so far."""

    seeds: itertools.count[int] = field(default_factory=lambda: itertools.count(2_000_000))
    usual: dict[str, list[Sample]] = field(default_factory=lambda: {"encoded": [], "redis": [], "hot": []})
    cold: dict[int, list[Sample]] = field(default_factory=lambda: {words: [] for words in _LENGTHS})
    hot: dict[int, list[Sample]] = field(default_factory=lambda: {words: [] for words in _LENGTHS})
    steps_ms: dict[int, list[float]] = field(default_factory=lambda: {batch: [] for batch in _BATCHES})
    alone: list[Sample] = field(default_factory=list)
    longer: list[Sample] = field(default_factory=list)
    beside: list[Sample] = field(default_factory=list)

    def measured(self, speed: Speed) -> DecoderMeasured:
        """Trimmed means of them."""
        alone_ms, longer_ms = (mean(some, lambda sample: sample.busy_ms["client"]) for some in (self.alone, self.longer))
        return DecoderMeasured(
            usual=self.usual,
            cold_ms=_prompts_ms([self.usual["encoded"] + self.usual["redis"], *self.cold.values()]),
            hot_ms=_prompts_ms([self.usual["hot"], *self.hot.values()]),
            step_ms={batch: trimmed(times) for batch, times in self.steps_ms.items()},
            client_token_ms=max(0.0, (longer_ms - alone_ms) / (_ANSWER - 1)),
            engine_weight=max(_LEAST_WEIGHT, mean(self.beside, _other_ms) / mean(self.alone, _other_ms) - 1),
            speed=speed,
            beside_ms=mean(self.beside, _prompt_ms),
            alone_ms=mean(self.alone, _prompt_ms),
        )


async def _places(services: Services, client: AsyncClient, other: AsyncClient, taken: _Taken, number: int) -> None:
    for nth in range(_USUAL):
        image, text = picture(next(taken.seeds)), 3 * (_USUAL * number + nth)
        for kind, who, further in (("encoded", client, 1), ("redis", other, 2), ("hot", client, 3)):
            taken.usual[kind].append(await sampled(services, who, image, question(text + further, WORDS)))


async def _lengths(services: Services, client: AsyncClient, taken: _Taken, number: int) -> None:
    for words in _LENGTHS:
        image = picture(next(taken.seeds))
        for further, samples in enumerate((taken.cold, taken.hot)):
            samples[words].append(await sampled(services, client, image, question(1000 + 2 * number + further, words)))


async def _steps(client: AsyncClient, taken: _Taken) -> None:
    """From one token to the next while all answers are under way."""
    for batch, times in taken.steps_ms.items():
        images = [picture(next(taken.seeds)) for _ in range(batch)]
        await asyncio.gather(*(client.ask(image, question(7, WORDS), sampling=so_many(1)) for image in images))
        arrivals = await asyncio.gather(*(_arrivals(client, image, nth) for nth, image in enumerate(images)))
        begin, end = max(moments[_FIRST] for moments in arrivals), min(moments[-1] for moments in arrivals)
        counts = [sum(begin < moment <= end for moment in moments) for moments in arrivals]
        times.append((end - begin) / statistics.mean(counts) * 1e3)


async def _arrivals(client: AsyncClient, image: bytes, number: int) -> list[float]:
    times = []
    async with client.stream(image, question(200 + number, WORDS), sampling=so_many(_ANSWER)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                times += [time.perf_counter()] * len(event.tokens)
    return times


async def _beside(services: Services, client: AsyncClient, taken: _Taken, number: int) -> None:
    images = [picture(next(taken.seeds)) for _ in range(_TURNS)]
    for nth, image in enumerate(images, _TURNS * number):
        await client.ask(image, question(3000 + nth, WORDS), sampling=so_many(1))
        taken.alone.append(await sampled(services, client, image, question(4000 + nth, WORDS)))
        taken.longer.append(await sampled(services, client, image, question(5000 + nth, WORDS), tokens=_ANSWER))
    async with _answers_under_way(client, [picture(next(taken.seeds)) for _ in range(_BESIDE)]):
        for nth, image in enumerate(images, _TURNS * number):
            taken.beside.append(await sampled(services, client, image, question(6000 + nth, WORDS)))


def _prompts_ms(kinds: Sequence[Sequence[Sample]]) -> dict[int, float]:
    """By rows of the prompt."""
    return {some[0].answer.usage.prompt_tokens: mean(some, _prompt_ms) for some in kinds}


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
