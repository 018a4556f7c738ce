"""Engines over small models, and ways to run them to the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from decoder_service.detokenize import TokenDecoder
from decoder_service.engine import Engine
from decoder_service.kv_cache.cache import Copy, KvCache
from decoder_service.kv_cache.segments import PageLayout, split_layers
from decoder_service.language.base import LanguageModel
from decoder_service.request import Delta, EngineRequest, Event, SampledToken
from decoder_service.runner.drawing import sample_seed
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.scheduler import Scheduler
from decoder_service.sequence import Piece
from tests.support.language_models import random_language, word_decoder

BLOCK_ROWS = 4
PAGES = 4096


R = TypeVar("R", bound=Runner)


def make_runner(
    model: LanguageModel,
    kind: type[R],
    *,
    prune_layers: Sequence[int] = (2, 4),
    pages: int = PAGES,
    block_rows: int = BLOCK_ROWS,
) -> R:
    layout = PageLayout(split_layers(model.shape.layers, prune_layers), block_rows, model.kv_shape)
    return kind(model, layout, pages=pages)


class WatchedRunner(Runner):
    """Counts the rows that ran in each segment, the rankings, and by sample the pieces of answers that run again."""

    def __init__(self, model: LanguageModel, layout: PageLayout, *, pages: int) -> None:
        super().__init__(model, layout, pages=pages)
        self.rows = [0] * len(layout.segments)
        self.ranked = 0
        self.again: Counter[int] = Counter()

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        outputs = super().run(pieces, copies)
        for piece in pieces:
            self.rows = [count + piece.rows(segment) for segment, count in enumerate(self.rows)]
            self.again[piece.sequence.sample] += bool(piece.sequence.generated) and not piece.decodes
        self.ranked += sum(len(output.pruned) for output in outputs)
        return outputs


def make_engine(
    model: LanguageModel | None = None,
    *,
    prune_layers: Sequence[int] = (2, 4),
    decode: TokenDecoder = word_decoder,
    tracer: Any = None,
    runner: Runner | None = None,
    pages: int = PAGES,
    block_rows: int = BLOCK_ROWS,
    reuse: bool = True,
    **limits: Any,
) -> Engine:
    """Blocks of four rows, so that small prompts have several; `pages` of the cache, `limits` of the scheduler."""
    model = model or (random_language() if runner is None else runner.model)
    runner = runner or make_runner(model, Runner, prune_layers=prune_layers, pages=pages, block_rows=block_rows)
    cache = KvCache(runner.layout, pages=runner.pages, reuse=reuse)
    scheduler = Scheduler(cache, **({"max_context_tokens": model.shape.max_context_tokens} | limits))
    return Engine(runner=runner, cache=cache, scheduler=scheduler, decode=decode, tracer=tracer)


def add(engine: Engine, request: EngineRequest) -> EngineRequest:
    """Accepts and adds it."""
    engine.check(request)
    engine.add(request, accepted_s=time.perf_counter())
    return request


def assert_empty(engine: Engine) -> None:
    """Nothing waits, runs, is held or leaked."""
    assert engine.idle
    engine.check_integrity()
    assert (engine.figures.waiting, engine.figures.running) == (0, 0)
    assert all(segment.rows == segment.used_bytes == 0 for segment in engine.figures.segments)


def run_all(engine: Engine, requests: Sequence[EngineRequest]) -> dict[str, list[Event]]:
    """Adds all requests at once and steps until the engine is idle."""
    for request in requests:
        engine.check(request)
    return run_unchecked(engine, requests)


def run_unchecked(engine: Engine, requests: Sequence[EngineRequest]) -> dict[str, list[Event]]:
    """As `run_all`, but nothing is refused."""
    events: dict[str, list[Event]] = {request.request_id: [] for request in requests}
    for request in requests:
        engine.add(request, accepted_s=time.perf_counter())
    while not engine.idle:
        for request_id, event in engine.step():
            events[request_id].append(event)
    engine.check_integrity()
    return events


def only(request: EngineRequest, sample: int) -> EngineRequest:
    """A request whose one answer is that sample of `request`."""
    sampling = replace(request.sampling, n=1, seed=sample_seed(request.sampling.seed, sample))
    return replace(request, request_id=f"{request.request_id} only {sample}", sampling=sampling)


def of_sample(events: Sequence[Event], sample: int) -> list[Event]:
    """Its deltas."""
    return [event for event in events if isinstance(event, Delta) and event.sample == sample]


def tokens_of(events: Sequence[Event]) -> list[SampledToken]:
    return [token for event in events if isinstance(event, Delta) for token in event.tokens]


def ids_of(events: Sequence[Event]) -> list[int]:
    return [token.token_id for token in tokens_of(events)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))
