"""A request's answer is the same alone and in any company, cold and hot, whole and in pieces, preempted or not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from decoder_service.kv_cache.cache import pages_of_samples
from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import EngineRequest, Event, Pruning, Result
from decoder_service.sequence import Sequence as RunningSequence
from tests.support.engines import WatchedRunner, ids_of, make_engine, make_runner, of_sample, only, run_all, tokens_of
from tests.support.language_models import ask, lay_out, random_language
from tests.support.qwen import IMAGE_PAD, VISION_END, VISION_START, shared_qwen
from vscan.checkpoint import Checkpoint
from vscan.specs import KeepRatio, KeepTokens, PositionPolicy, PruneBudget, Rater
from vscan.visual_tokens import SampledFrames, Tile, VisualTokens

# float32: a product of matrices rounds differently with the number of its rows. Of two choices this close either is right.
LOGPROB_TOLERANCE = 2e-4
CLOSE_LOGITS = 1e-3
MOST_EXCUSED = 0.01
MOST_NEW_TOKENS = 20


@dataclass(frozen=True)
class Family:
    """A model by dtype, and how a prompt holds its images."""

    load: Callable[[torch.dtype], LanguageModel]
    prune_layers: tuple[int, ...]
    placeholder: int
    around: tuple[list[int], list[int]]
    vocabulary: int
    positions: PositionPolicy


@cache
def llama(dtype: torch.dtype) -> LanguageModel:
    return random_language(layers=6, kv_heads=2, dtype=dtype, seed=2)


@cache
def qwen(dtype: torch.dtype) -> LanguageModel:
    return load_language(Checkpoint.open(shared_qwen()[0]), dtype=dtype, device="cpu")


FAMILIES = {
    "one position": Family(llama, (2, 4), 63, ([], []), 60, PositionPolicy.RENUMBER),
    "three axes": Family(qwen, (1, 3), IMAGE_PAD, ([VISION_START], [VISION_END]), 280, PositionPolicy.KEEP),
}
BUDGETS: list[tuple[PruneBudget, ...]] = [
    (KeepTokens(6), KeepTokens(3)),
    (KeepRatio(0.5), KeepRatio(0.5)),
    (KeepTokens(99), KeepTokens(2)),
]


def image(seed: int, dtype: torch.dtype) -> VisualTokens:
    """Ten to twenty tokens of a grid of 5 x 6; a seed is an image."""
    generator = torch.Generator().manual_seed(seed)
    count = 10 + seed % 11
    kept = torch.randperm(30, generator=generator)[:count].sort().values
    rows = torch.randn((count, 32), generator=generator, dtype=torch.float64).to(dtype)
    return VisualTokens(rows, kept, torch.zeros(count, dtype=torch.uint8), None, (Tile(5, 6, count),), 30)


def video(seed: int, dtype: torch.dtype) -> VisualTokens:
    """Three moments of 3 x 4, of each some tokens; a seed is a video."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.cat(
        [12 * moment + torch.randperm(12, generator=generator)[: 3 + seed % 3].sort().values for moment in range(3)]
    )
    count = kept.shape[0]
    rows = torch.randn((count, 32), generator=generator, dtype=torch.float64).to(dtype)
    tiles = (Tile(3, 4, count // 3),) * 3
    return VisualTokens(rows, kept, torch.zeros(count, dtype=torch.uint8), None, tiles, 36, SampledFrames((0.0,) * 6, 3.0))


def draw_request(family: Family, generator: random.Random, dtype: torch.dtype) -> EngineRequest:
    """Few images and few system texts, so that prompts often begin alike; one in four has none. Some answers are drawn, some
    several times.
    """
    system = [1, *(3 + (generator.randrange(2) * 7 + row) % 50 for row in range(generator.choice([1, 6, 9])))]
    pieces: list[list[int] | VisualTokens] = [system]
    for _ in range(generator.choice([0, 1, 1, 1, 2])):
        seen = image(generator.randrange(3), dtype) if generator.random() < 0.7 else video(generator.randrange(2), dtype)
        pieces += [family.around[0], seen, family.around[1]]
    pieces.append([3 + generator.randrange(family.vocabulary - 10) for _ in range(generator.randint(1, 6))])
    layers = generator.choice([(), family.prune_layers, family.prune_layers, family.prune_layers[:1], family.prune_layers[1:]])
    budgets = generator.choice(BUDGETS)[: len(layers)]
    rater = generator.choice([Rater.LAST_TOKEN, Rater.LAST_TOKEN, Rater.TEXT_MEAN, Rater.RANDOM, Rater.DROP_ALL])
    if rater is Rater.DROP_ALL:
        layers, budgets = layers[:1], ()
    positions = generator.choice([family.positions, *PositionPolicy])
    pruning = Pruning(layers=layers, budgets=budgets, rater=rater, seed=1, positions=positions) if layers else Pruning()
    return ask(
        lay_out(pieces, placeholder=family.placeholder),
        pruning=pruning,
        max_new_tokens=generator.randint(1, MOST_NEW_TOKENS),
        logprobs=2,
        temperature=generator.choice([0.0, 0.7, 1.3]),
        top_p=generator.choice([1.0, 0.9]),
        seed=generator.getrandbits(64),
        repetition_penalty=generator.choice([1.0, 1.0, 1.2]),
        presence_penalty=generator.choice([0.0, 0.0, 0.5]),
        n=generator.choice([1, 1, 2, 3]),
        tenant=generator.choice(["acme", "acme", "zoo"]),
    )


def greedy(request: EngineRequest) -> EngineRequest:
    return replace(request, sampling=replace(request.sampling, temperature=0.0, repetition_penalty=1.0, presence_penalty=0.0))


def draw_burst(family: Family, generator: random.Random, dtype: torch.dtype) -> list[EngineRequest]:
    """Several questions about one of two images, or about both, that come together."""
    return [
        replace(request, prompt=lay_out(_question(family, generator, dtype), placeholder=family.placeholder))
        for request in (draw_request(family, generator, dtype) for _ in range(8))
    ]


def _question(family: Family, generator: random.Random, dtype: torch.dtype) -> list[list[int] | VisualTokens]:
    before, after = family.around
    seeds = generator.choice([(5,), (5,), (6,), (5, 6)])
    pictures: list[list[list[int] | VisualTokens]] = [[before, image(seed, dtype), after] for seed in seeds]
    asked = [3 + generator.randrange(family.vocabulary - 10) for _ in range(generator.randint(1, 6))]
    return [[1, 5, 6, 7], *(piece for picture in pictures for piece in picture), asked]


def survivors(events: list[Event]) -> list[Any]:
    assert isinstance(events[-1], Result)
    return [(done.layer, done.survivors) for done in events[-1].pruning]


def alone(family: Family, request: EngineRequest, dtype: torch.dtype) -> list[Event]:
    """Cold, whole, without company; of one sample."""
    engine = make_engine(family.load(dtype), prune_layers=family.prune_layers, reuse=False)
    return run_all(engine, [request])[request.request_id]


def mixed(
    family: Family,
    requests: list[EngineRequest],
    generator: random.Random,
    dtype: torch.dtype,
    *,
    arriving: Sequence[int] = (0, 1, 1, 5),
) -> tuple[dict[str, list[Event]], Counter[str]]:
    """All of them in one engine, under limits drawn at random; some come later. And what happened on the way."""
    block_rows = generator.choice([1, 2, 4, 8])
    probe = make_engine(family.load(dtype), prune_layers=family.prune_layers, block_rows=block_rows, pages=1)
    layout = probe._cache.layout
    sequences = [RunningSequence(request, layout.segments) for request in requests]
    largest = max(pages_of_samples(layout, each.most_rows(), each.prompt_rows, samples=each.samples) for each in sequences)
    runner = make_runner(
        family.load(dtype),
        WatchedRunner,
        prune_layers=family.prune_layers,
        block_rows=block_rows,
        pages=round(largest * generator.choice([1, 1.2, 2, 5])),
    )
    engine = make_engine(
        runner=runner,
        max_running=generator.randint(3, 7),
        max_step_rows=generator.choice([max(each.samples for each in sequences), 5, 17, 300]),
        max_waiting=99,
        spare_blocks=0,
    )
    events: dict[str, list[Event]] = {request.request_id: [] for request in requests}
    left = list(requests)
    while left or not engine.idle:
        for _ in range(min(len(left), generator.choice(arriving))):
            request = left.pop(0)
            engine.check(request)
            engine.add(request, accepted_s=0.0)
        for name, event in engine.step():
            events[name].append(event)
    engine.check_integrity()
    assert all(segment.rows == segment.blocks == 0 for segment in engine.figures.segments)
    happened = Counter(preempted=engine.figures.preemptions, reused=engine.figures.reused_rows)
    happened["samples again"] = sum(count for sample, count in runner.again.items() if sample)
    return events, happened


def assert_as_alone(family: Family, request: EngineRequest, found: list[Event]) -> None:
    for sample in range(request.sampling.n):
        expected, own = alone(family, only(request, sample), torch.float64), of_sample(found, sample)
        assert ids_of(own) == ids_of(expected)
        assert survivors(found) == survivors(expected)
        for one, other in zip(tokens_of(own), tokens_of(expected), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float64_nothing_changes_an_answer(name: str) -> None:
    family, happened = FAMILIES[name], Counter[str]()
    for seed in range(14):
        generator = random.Random(seed)
        requests = [draw_request(family, generator, torch.float64) for _ in range(10)]
        together, more = mixed(family, requests, generator, torch.float64)
        happened += more
        for request in requests:
            assert_as_alone(family, request, together[request.request_id])
    # The mixes did put the engine under stress.
    assert happened["preempted"] > 3
    assert happened["samples again"] > 3
    assert happened["reused"] > 100


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float64_a_burst_of_questions_about_few_images_changes_no_answer(name: str) -> None:
    family, happened = FAMILIES[name], Counter[str]()
    for seed in range(50, 60):
        generator = random.Random(seed)
        requests = draw_burst(family, generator, torch.float64)
        together, more = mixed(family, requests, generator, torch.float64, arriving=(8, 8, 4))
        happened += more
        for request in requests:
            assert_as_alone(family, request, together[request.request_id])
    assert happened["preempted"] > 0
    assert happened["reused"] > 200


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float32_only_what_is_too_close_to_call_may_differ(name: str) -> None:
    family = FAMILIES[name]
    tokens = excused = 0
    for seed in range(100, 106):
        generator = random.Random(seed)
        # Greedy and not penalised: how close a call was shows in the log-probabilities then.
        requests = [greedy(draw_request(family, generator, torch.float32)) for _ in range(10)]
        together, _ = mixed(family, requests, generator, torch.float32)
        for request, sample in [(each, sample) for each in requests for sample in range(each.sampling.n)]:
            whole = together[request.request_id]
            expected, found = alone(family, only(request, sample), torch.float32), of_sample(whole, sample)
            assert survivors(whole) == survivors(expected)
            for one, other in zip(tokens_of(found), tokens_of(expected), strict=True):
                tokens += 1
                if one.token_id != other.token_id:
                    assert other.top[0][1] - other.top[1][1] < CLOSE_LOGITS
                    excused += 1
                    break
                assert one.logprob == pytest.approx(other.logprob, abs=LOGPROB_TOLERANCE)
    assert tokens > 400
    assert excused <= MOST_EXCUSED * tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_cached_whole_runs_no_row_of_the_first_segment(name: str) -> None:
    """The same question again, its prompt a whole number of blocks: it ranks and goes on from the store alone."""
    family = FAMILIES[name]
    layers = family.prune_layers[:1]
    before, after = family.around
    prompt = lay_out([[1, 5, 6, *before], image(4, torch.float64), [*after, 9, 9, 9]], placeholder=family.placeholder)
    pruning = Pruning(layers=layers, budgets=(KeepTokens(4),), rater=Rater.LAST_TOKEN, positions=family.positions)
    first = ask(prompt, pruning=pruning, logprobs=1)
    engine = make_engine(family.load(torch.float64), prune_layers=layers, block_rows=1)
    expected = run_all(engine, [first])[first.request_id]
    again = replace(first, request_id="again")
    assert engine.figures.reused_rows == 0
    found = run_all(engine, [again])["again"]
    assert engine.figures.reused_rows == prompt.rows
    assert (ids_of(found), survivors(found)) == (ids_of(expected), survivors(expected))
    for one, other in zip(tokens_of(found), tokens_of(expected), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_later_turn_reuses_the_turn_before_with_its_answer(name: str) -> None:
    family = FAMILIES[name]
    pruning = Pruning(
        layers=family.prune_layers, budgets=(KeepTokens(6), KeepTokens(3)), rater=Rater.LAST_TOKEN, positions=family.positions
    )
    head: list[list[int] | VisualTokens] = [[1, 5, 6, *family.around[0]], image(5, torch.float64), [*family.around[1], 9, 11]]
    first = ask(lay_out(head, placeholder=family.placeholder), pruning=pruning, max_new_tokens=9)
    engine = make_engine(family.load(torch.float64), prune_layers=family.prune_layers, block_rows=2)
    answer = ids_of(run_all(engine, [first])[first.request_id])
    turn = lay_out([*head, [*answer, 13, 14]], placeholder=family.placeholder)
    second = ask(turn, pruning=pruning, logprobs=1)
    found = run_all(engine, [second])[second.request_id]
    ran = first.prompt.rows + len(answer) - 1  # the last token of an answer never runs
    assert engine.figures.reused_rows == ran // 2 * 2
    expected = alone(family, replace(second, request_id="cold"), torch.float64)
    assert (ids_of(found), survivors(found)) == (ids_of(expected), survivors(expected))
    for one, other in zip(tokens_of(found), tokens_of(expected), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-9)


def test_what_runs_again_a_row_at_a_time_may_be_at_another_row_in_each_segment() -> None:
    """It gave way, and of its answer more is left in the first segment than in the second."""
    family = FAMILIES["one position"]
    request = ask(lay_out([[1, 5, 6]]), max_new_tokens=12, logprobs=1)
    engine = make_engine(family.load(torch.float64), prune_layers=(3,), block_rows=1, max_running=1, max_step_rows=1)
    engine.add(request, accepted_s=0.0)
    outcomes = [outcome for _ in range(10) for outcome in engine.step()]
    engine._scheduler._preempt(engine._scheduler._running[request.request_id])
    for block in [block for block in engine._cache._index.idle if block.segment == 1][:4]:
        engine._cache._pool._evict(block)
    while not engine.idle:
        outcomes += engine.step()
    found, expected = [event for _, event in outcomes], alone(family, request, torch.float64)
    assert ids_of(found) == ids_of(expected)
    for one, other in zip(tokens_of(found), tokens_of(expected), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-9)
