"""The studies look at what is served: the engine keeps what they say it keeps, and answers what they say it answers."""

from __future__ import annotations

import pytest
import torch

from decoder_service.engine import Engine
from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import Prompt, Pruning, Result
from studies.language.lens import read, read_answer
from studies.language.retained import RATERS, retained
from tests.support.engines import ids_of, make_engine, run_all
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.qwen import IMAGE_PAD, shared_qwen
from vscan.checkpoint import Checkpoint
from vscan.specs import KeepTokens, Rater

LAYERS = (1, 2, 3)
KEEP = 5


@pytest.fixture(scope="module", params=["rope in scores", "no rope in scores"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    if request.param == "rope in scores":
        return random_language(layers=4, dtype=torch.float64)
    return load_language(Checkpoint.open(shared_qwen()[0]), dtype=torch.float64, device="cpu")


@pytest.fixture(scope="module")
def engine(model: LanguageModel) -> Engine:
    return make_engine(model, prune_layers=LAYERS)


@pytest.fixture(scope="module")
def prompts(model: LanguageModel) -> list[Prompt]:
    """One with one picture, one with two and text between them."""

    def picture(count: int, seed: int):  # type: ignore[no-untyped-def]
        return random_image(count, hidden=32, seed=seed, dtype=torch.float64)

    placeholder = 63 if model.family == "test" else IMAGE_PAD
    one = lay_out([[1, 4, 9], picture(12, 0), [5, 6, 7]], placeholder=placeholder)
    two = lay_out([[1], picture(6, 1), [8, 9], picture(9, 2), [3, 11]], placeholder=placeholder)
    return [one, two]


@pytest.mark.parametrize("rater", RATERS)
def test_the_engine_keeps_the_same_tokens(model: LanguageModel, engine: Engine, prompts: list[Prompt], rater: Rater) -> None:
    for prompt in prompts:
        found = {each.layer: each.tokens.tolist() for each in retained(model, prompt, LAYERS, KeepTokens(KEEP), [rater])}
        pruned = {layer: Pruning(layers=(layer,), budgets=(KeepTokens(KEEP),), rater=rater) for layer in LAYERS}
        assert found == {layer: kept_by(engine, prompt, pruning) for layer, pruning in pruned.items()}


def test_the_engine_answers_the_same_without_pictures(model: LanguageModel, engine: Engine, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        whole = first_token(engine, prompt, Pruning())
        blind = [first_token(engine, prompt, dropped(model, layer)) for layer in LAYERS]
        assert read(model, prompt).blind.agrees[1:4] == tuple(token == whole for token in blind)


def test_an_answer_is_read_token_by_token(model: LanguageModel, engine: Engine, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        request = ask(prompt, max_new_tokens=4, ignore_eos=False)
        answer = ids_of(run_all(engine, [request])[request.request_id])
        assert [reading.token for reading in read_answer(model, prompt, 4)] == answer


def dropped(model: LanguageModel, layer: int) -> Pruning:
    return Pruning(layers=(layer,), rater=Rater.DROP_ALL, positions=model.default_positions)


def kept_by(engine: Engine, prompt: Prompt, pruning: Pruning) -> list[int]:
    request = ask(prompt, max_new_tokens=1, pruning=pruning)
    (result,) = (event for event in run_all(engine, [request])[request.request_id] if isinstance(event, Result))
    first, kept = 0, []
    for image, rows in zip(prompt.images, result.pruning[0].survivors, strict=True):
        kept += [first + row for row in rows]
        first += image.kept_count
    return kept


def first_token(engine: Engine, prompt: Prompt, pruning: Pruning) -> int:
    request = ask(prompt, max_new_tokens=1, pruning=pruning)
    return ids_of(run_all(engine, [request])[request.request_id])[0]
