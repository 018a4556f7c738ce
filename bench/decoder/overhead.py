"""What a step of eight sequences takes beside the model and the sampler."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.decoder.setup import REDUCED, Setup
from bench.harness import Check, Report
from decoder_service.engine import Engine
from decoder_service.engine_loop import EngineLoop, Submission
from decoder_service.language.base import LanguageModel
from decoder_service.runner.sampler import Sampler

_WARM, _STEPS = 30, 200
# Embedding, layers with attention and what it writes, head; a recorded step, which is all of these; choosing tokens, for which
# the device is waited for.
_MODEL: list[tuple[Any, str]] = [
    (LanguageModel, "walk"),
    (LanguageModel, "embed_ids"),
    (LanguageModel, "logits"),
    (torch.cuda.CUDAGraph, "replay"),
    (Sampler, "sample"),
]


def measure(setup: Setup, report: Report) -> None:
    """Scheduling, pages, positions, indices, text, events; and the way of the events to a loop on which callers wait."""
    engine = setup.engine()
    for place in range(8):
        engine.add(
            setup.question(setup.image(REDUCED), setup.pruned, new=_WARM + _STEPS + 9 + place), accepted_s=time.perf_counter()
        )
    steps = _steps(engine, engine.step)
    report.checks.append(Check("step_overhead_ms", statistics.median(steps), "<=", 1))
    report.raw.append({"kind": "step overhead", "ms": steps})
    delivered = asyncio.run(_delivered(setup))
    report.summary["step_overhead_ms with events on their way to eight callers"] = statistics.median(delivered)
    report.raw.append({"kind": "step overhead with delivery", "ms": delivered})


def _steps(engine: Engine, step: Callable[[], Any]) -> list[float]:
    overhead = []
    with _model_time() as spent:
        for _ in range(_WARM + _STEPS):
            spent[0] = 0.0
            start = time.perf_counter()
            step()
            overhead.append((time.perf_counter() - start - spent[0]) * 1e3)
    return overhead[_WARM:]


async def _delivered(setup: Setup) -> list[float]:
    """The same over the engine's thread: from one step's begin to the next one's."""
    engine = setup.engine()
    loop, overhead, begun = EngineLoop(engine), [], [0.0]
    step = engine.step

    with _model_time() as spent:

        def watched() -> Any:
            now = time.perf_counter()
            overhead.append((now - begun[0] - spent[0]) * 1e3)
            begun[0], spent[0] = now, 0.0
            return step()

        engine.step = watched  # type: ignore[method-assign]
        loop.start()
        asked = [setup.question(setup.image(REDUCED), setup.pruned, new=_WARM + _STEPS) for _ in range(8)]
        submissions = [await loop.submit(request) for request in asked]
        await asyncio.gather(*map(_read, submissions))
        await asyncio.to_thread(loop.stop)
    return overhead[_WARM:-_WARM]


async def _read(submission: Submission) -> None:
    async for _ in submission:
        pass


@contextmanager
def _model_time() -> Iterator[list[float]]:
    """Adds up the seconds within `_MODEL`."""
    spent = [0.0]

    def watched(function: Any) -> Any:
        def call(*args: Any, **fields: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **fields)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    originals = [getattr(owner, name) for owner, name in _MODEL]
    for (owner, name), original in zip(_MODEL, originals, strict=True):
        setattr(owner, name, watched(original))
    try:
        yield spent
    finally:
        for (owner, name), original in zip(_MODEL, originals, strict=True):
            setattr(owner, name, original)
