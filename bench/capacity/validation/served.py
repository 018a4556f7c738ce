"""A load through the services: every question at its time, however the ones before it fare."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.capacity.measuring.questions import question, so_many
from bench.capacity.services import Services, machine_busy_s
from bench.capacity.simulation.asks import Ask
from bench.capacity.simulation.world import Simulated
from vscan.errors import VScanError
from vscan_client import AsyncClient


@dataclass(frozen=True, slots=True)
class Seen:
    """What a load came to, of services or of the simulation. Lists are in the order of the questions."""

    first_ms: Sequence[float]
    total_ms: Sequence[float]
    seconds: float
    encoded: int
    passes: int
    found: Sequence[str]  # where the image of each question was
    failed: int
    decoders_busy: float  # processor time of all decoders, as a share of the time
    others_busy: float  # of encoders, Redis and clients together
    foreign_busy: float = 0.0  # of processes that are no part of this, as a share of both cores

    @property
    def places(self) -> Counter[str]:
        """How often each."""
        return Counter(self.found)

    @property
    def first_by_place_ms(self) -> dict[str, float]:
        """Means."""
        return {
            place: fmean(first for first, found in zip(self.first_ms, self.found, strict=True) if found == place)
            for place in sorted(self.places)
        }

    @property
    def per_second(self) -> float:
        """Answers, from the first question to the last answer."""
        return len(self.first_ms) / self.seconds


async def served(services: Services, asks: Sequence[Ask], images: Sequence[bytes], known: int) -> Seen:
    """Asks about the first `known` images once, then the load."""
    async with AsyncClient(server=services.addresses if len(services.addresses) > 1 else services.addresses[0]) as client:
        for image in images[:known]:
            await client.ask(image, question(1, 8), sampling=so_many(1))
        encoded, passes = services.images_encoded(), services.passes()
        # A client has no model libraries in its heap: their objects must not be collected while it waits for tokens.
        gc.collect()
        gc.freeze()
        busy, machine_s = services.busy_s(), machine_busy_s(services.cores)
        began = time.perf_counter()
        ends = await asyncio.gather(*(_asked(client, images, number, ask, began) for number, ask in enumerate(asks)))
        seconds = time.perf_counter() - began - asks[0].at_s
        spent = {kind: after_s - busy[kind] for kind, after_s in services.busy_s().items()}
        machine_s = machine_busy_s(services.cores) - machine_s
        gc.unfreeze()
    answered = [end for end in ends if end is not None]
    return Seen(
        first_ms=[first for first, _, _ in answered],
        total_ms=[total for _, total, _ in answered],
        seconds=seconds,
        encoded=services.images_encoded() - encoded,
        passes=services.passes() - passes,
        found=[place for _, _, place in answered],
        failed=len(ends) - len(answered),
        decoders_busy=spent["decoder"] / seconds,
        others_busy=(spent["encoder"] + spent["redis"] + spent["client"]) / seconds,
        foreign_busy=max(0.0, machine_s - sum(spent.values())) / 2 / seconds,
    )


async def _asked(
    client: AsyncClient, images: Sequence[bytes], number: int, ask: Ask, began: float
) -> tuple[float, float, str] | None:
    """Milliseconds to the first token and to the end, from when it was due; and where the image was. None where it failed."""
    await asyncio.sleep(max(0.0, began + ask.at_s - time.perf_counter()))
    text, tokens = question(10 + number, ask.question_rows), so_many(ask.answer_tokens)
    late_ms = (time.perf_counter() - began - ask.at_s) * 1e3
    try:
        answer = await client.ask(images[ask.images[0]], text, sampling=tokens)
    except VScanError:
        return None
    first_ms = answer.client.first_token_ms or 0.0
    return late_ms + first_ms, late_ms + answer.client.total_ms, str(answer.images[0].place)


def simulated(result: Simulated) -> Seen:
    """The same of the simulation, on two cores as the services are."""
    answered = [outcome for outcome in result.outcomes if outcome.status == "answered"]
    return Seen(
        first_ms=[outcome.first_token_ms for outcome in answered],
        total_ms=[(outcome.end_s - outcome.ask.at_s) * 1e3 for outcome in answered],
        seconds=result.seconds - result.outcomes[0].ask.at_s,
        encoded=result.images_encoded,
        passes=result.passes,
        found=[outcome.places[0] for outcome in answered],
        failed=len(result.outcomes) - len(answered),
        decoders_busy=result.busy["decoder"][0],
        others_busy=result.busy["encoder"][0],
    )
