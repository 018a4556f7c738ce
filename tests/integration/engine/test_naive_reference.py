"""The engine against stage 2 written out without cache, segments or packing."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, Event, Prompt, Pruning, Result
from tests.support.engines import BLOCK_ROWS, make_engine, run_all, tokens_of
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.naive_llama import NaiveAnswer, naive_generate
from vscan.specs import KeepRatio, KeepTokens, PositionPolicy, PruneBudget, Rater
from vscan.visual_tokens import VisualTokens

NEW_TOKENS = 6
LAYERS = (2, 4)
# Norms and rotary embeddings are computed in float32 even here.
TOLERANCE = 1e-4


@cache
def model(kv_heads: int = 2) -> LanguageModel:
    return random_language(layers=6, kv_heads=kv_heads, dtype=torch.float64, seed=kv_heads)


def prompt(seed: int, images: tuple[int, ...] = (12,)) -> Prompt:
    generator = random.Random(seed)
    pieces: list[list[int] | VisualTokens] = [[1, *(generator.randrange(3, 60) for _ in range(3))]]
    for place, count in enumerate(images):
        pieces += [
            random_image(count, hidden=32, seed=seed * 10 + place, dtype=torch.float64),
            [generator.randrange(3, 60) for _ in range(4)],
        ]
    return lay_out(pieces)


def pruned(
    *budgets: PruneBudget,
    layers: tuple[int, ...] = LAYERS,
    rater: Rater = Rater.LAST_TOKEN,
    positions: PositionPolicy = PositionPolicy.RENUMBER,
) -> Pruning:
    return Pruning(layers=layers, budgets=budgets, rater=rater, positions=positions)


def request(seed: int, pruning: Pruning, images: tuple[int, ...] = (12,)) -> EngineRequest:
    return ask(prompt(seed, images), pruning=pruning, max_new_tokens=NEW_TOKENS, logprobs=3)


def assert_same(events: list[Event], expected: NaiveAnswer, asked: EngineRequest) -> None:
    tokens, result = tokens_of(events), events[-1]
    assert isinstance(result, Result)
    assert [token.token_id for token in tokens] == expected.ids
    for token, logprobs in zip(tokens, expected.logprobs, strict=True):
        assert token.logprob == pytest.approx(float(logprobs[token.token_id]), abs=TOLERANCE)
        assert [logprob for _, logprob in token.top] == pytest.approx(logprobs.topk(3).values.tolist(), abs=TOLERANCE)
    starts = [span.start for span in asked.prompt.spans]
    for done in result.pruning:
        kept = [start + row for start, rows in zip(starts, done.survivors, strict=True) for row in rows]
        assert kept == expected.survivors[done.layer]
    assert [done.layer for done in result.pruning] == sorted(expected.survivors)


PRUNINGS = {
    "none": Pruning(),
    "one layer": pruned(KeepTokens(5), layers=(4,)),
    "two layers": pruned(KeepTokens(7), KeepTokens(3)),
    "two layers, ratios": pruned(KeepRatio(0.5), KeepRatio(0.34)),
    "positions kept": pruned(KeepTokens(7), KeepTokens(3), positions=PositionPolicy.KEEP),
    "mean of text": pruned(KeepTokens(7), KeepTokens(3), rater=Rater.TEXT_MEAN),
    "all dropped": pruned(layers=(2,), rater=Rater.DROP_ALL),
    "all dropped, positions kept": pruned(layers=(2,), rater=Rater.DROP_ALL, positions=PositionPolicy.KEEP),
    "more than there are": pruned(KeepTokens(99), KeepTokens(3)),
}


@pytest.mark.parametrize("kind", PRUNINGS)
@pytest.mark.parametrize("seed", [1, 2])
@torch.inference_mode()
def test_an_answer_alone(kind: str, seed: int) -> None:
    asked = request(seed, PRUNINGS[kind])
    events = run_all(make_engine(model(), prune_layers=LAYERS), [asked])[asked.request_id]
    assert_same(events, naive_generate(model(), asked), asked)


@pytest.mark.parametrize("kv_heads", [1, 4])
@torch.inference_mode()
def test_other_numbers_of_kv_heads(kv_heads: int) -> None:
    asked = request(3, PRUNINGS["two layers"])
    events = run_all(make_engine(model(kv_heads), prune_layers=LAYERS), [asked])[asked.request_id]
    assert_same(events, naive_generate(model(kv_heads), asked), asked)


@pytest.mark.parametrize("images", [(6, 6), (9, 1, 4)])
@torch.inference_mode()
def test_several_images_none_of_which_loses_all_its_tokens(images: tuple[int, ...]) -> None:
    asked = request(4, pruned(KeepTokens(len(images)), KeepTokens(1)), images)
    events = run_all(make_engine(model(), prune_layers=LAYERS), [asked])[asked.request_id]
    assert_same(events, naive_generate(model(), asked), asked)
    assert isinstance(events[-1], Result)
    assert all(len(rows) == 1 for rows in events[-1].pruning[0].survivors)


@torch.inference_mode()
def test_a_packed_step_of_unlike_requests_changes_no_answer() -> None:
    asked = [request(10 + place, pruning) for place, pruning in enumerate(PRUNINGS.values())]
    asked.append(ask(lay_out([[1, 7, 9]]), max_new_tokens=NEW_TOKENS, logprobs=3))
    # Three at a time, of at most two prompts a step: prompts and decode rows meet in all sorts of steps.
    engine = make_engine(model(), prune_layers=LAYERS, max_running=3, max_step_rows=40)
    events = run_all(engine, asked)
    for one in asked:
        assert_same(events[one.request_id], naive_generate(model(), one), one)


@torch.inference_mode()
def test_rows_and_bytes_of_each_segment() -> None:
    asked = request(5, PRUNINGS["two layers"])
    expected = naive_generate(model(), asked)
    engine = make_engine(model(), prune_layers=LAYERS)
    engine.add(asked, accepted_s=0.0)
    rows = (20, 15, 11)  # 8 of text, and 12, 7, 3 visual tokens
    assert rows == tuple(expected.rows)
    layers, shape = 2, model().kv_shape
    for step in range(NEW_TOKENS - 1):
        engine.step()
        held = engine.figures.segments
        assert tuple(segment.rows for segment in held) == tuple(count + step for count in rows)
        blocks = [-(-(count + step) // BLOCK_ROWS) for count in rows]
        assert [segment.blocks for segment in held] == blocks
        in_blocks = [count * BLOCK_ROWS for count in blocks]
        kv_bytes = sum(in_blocks) * layers * shape.row_bytes
        boundary_bytes = sum(in_blocks[:-1]) * shape.boundary_row_bytes
        assert sum(segment.used_bytes for segment in held) == kv_bytes + boundary_bytes
    engine.cancel(asked.request_id)
    assert all(segment.rows == segment.used_bytes == 0 for segment in engine.figures.segments)


@torch.inference_mode()
def test_random_survivors_follow_the_seed() -> None:
    def survivors(seed: int) -> list[tuple[tuple[int, ...], ...]]:
        pruning = Pruning(layers=LAYERS, budgets=(KeepTokens(7), KeepTokens(3)), rater=Rater.RANDOM, seed=seed)
        asked = request(6, pruning)
        result = run_all(make_engine(model(), prune_layers=LAYERS), [asked])[asked.request_id][-1]
        assert isinstance(result, Result)
        assert [done.tokens_after for done in result.pruning] == [7, 3]
        return [done.survivors for done in result.pruning]

    assert survivors(1) == survivors(1)
    assert len({str(survivors(seed)) for seed in range(8)}) > 4
