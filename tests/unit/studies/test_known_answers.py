"""The studies of the language model on models whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from decoder_service.language.base import LanguageModel
from decoder_service.request import Prompt
from studies.language.bias import BiasCounter, PositionBias
from studies.language.lens import read, readings
from studies.language.retained import RATERS, retained
from studies.language.shares import shares
from studies.language.walk import side_by_side, walk
from tests.support.language_models import lay_out, random_image, random_language
from tests.support.planted_language import PLACEHOLDER, marked_picture, planted
from vscan.specs import KeepTokens, Rater

ROWS, COLUMNS = 4, 6
# Where each layer looks, as row and column of the picture; layer 3 looks nowhere in particular.
PLACES = {0: (2, 5), 1: (0, 0), 2: (3, 1)}
LAYERS = (1, 2, 3)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return planted(4, {1: 0, 2: 2})


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return lay_out([[1, 5], marked_picture(ROWS, COLUMNS, PLACES), [7, 8, 9]], placeholder=PLACEHOLDER)


def bias_of(model: LanguageModel, prompts: Sequence[Prompt], keep: int) -> PositionBias:
    counter = BiasCounter()
    for number, prompt in enumerate(prompts):
        counter.add(prompt, retained(model, prompt, LAYERS, KeepTokens(keep)), str(number))
    return counter.result()


@pytest.mark.parametrize("rater", RATERS)
@pytest.mark.parametrize(("layer", "place"), [(1, PLACES[0]), (2, PLACES[2])])
def test_what_a_layer_looks_at_is_kept_and_the_centre_of_mass_is_there(
    model: LanguageModel, prompt: Prompt, layer: int, place: tuple[int, int], rater: Rater
) -> None:
    (found,) = (each for each in bias_of(model, [prompt, prompt], keep=1).of(rater) if each.layer == layer)
    expected = np.zeros((ROWS, COLUMNS))
    expected[place] = 1
    assert np.array_equal(found.map, expected)
    assert found.row.mean == (place[0] + 0.5) / ROWS
    assert found.column.mean == (place[1] + 0.5) / COLUMNS
    assert (found.row_deviation, found.column_deviation) == (0, 0)
    assert found.raster.mean == (place[0] * COLUMNS + place[1]) / (ROWS * COLUMNS - 1)
    assert found.unevenness == pytest.approx(1 - 1 / (ROWS * COLUMNS))


def test_of_even_attention_the_first_tokens_are_kept(model: LanguageModel, prompt: Prompt) -> None:
    """Ties go to the lower index: a rater that tells nothing apart keeps the top of the picture."""
    (found,) = (each for each in bias_of(model, [prompt], keep=COLUMNS).of(Rater.LAST_TOKEN) if each.layer == 3)
    assert np.array_equal(found.map, np.repeat([[1.0], [0.0], [0.0], [0.0]], COLUMNS, axis=1))
    assert (found.row.mean, found.column.mean) == (0.5 / ROWS, 0.5)


def test_candidates_stand_in_the_middle_where_nothing_was_reduced(model: LanguageModel, prompt: Prompt) -> None:
    found = bias_of(model, [prompt], keep=2).candidates
    assert (found.map == 1).all()
    assert (found.row.mean, found.column.mean, found.raster.mean) == pytest.approx((0.5, 0.5, 0.5))


def test_attention_is_shared_as_the_layer_looks(model: LanguageModel, prompt: Prompt) -> None:
    found = {each.layer: each for each in shares(model, prompt)}
    visual = ROWS * COLUMNS
    rows = visual + 5
    assert found[0].visual == pytest.approx(visual / rows, abs=1e-7)  # even attention
    assert found[0].system == pytest.approx(2 / rows, abs=1e-7)
    assert found[0].question == pytest.approx(3 / rows, abs=1e-7)
    assert found[0].first == pytest.approx(1 / rows, abs=1e-7)
    assert found[1].visual > 0.999  # all to one token
    for each in found.values():
        assert each.visual + each.system + each.question == pytest.approx(1, abs=1e-12)


def silenced(model: LanguageModel, first: int, *names: str) -> LanguageModel:
    """These projections of the layers from `first` on write nothing."""
    for layer in model.layers[first:]:
        for name in names:
            half, projection = name.split(".")
            weight = getattr(getattr(layer, half), projection).weight
            weight.zero_()
    return model


def random_prompt(seed: int) -> Prompt:
    return lay_out([[1, 4], random_image(9, hidden=32, seed=seed), [5, 6 + seed, 7]])


def test_the_lens_is_stable_from_where_layers_change_nothing() -> None:
    model = silenced(random_language(layers=6, dtype=torch.float64), 4, "self_attn.o_proj", "mlp.down_proj")
    for seed in range(4):
        found = read(model, random_prompt(seed)).lens
        assert found.stable_from <= 4
        assert found.kl_nats[4:] == (0.0, 0.0, 0.0)
        assert all(kl > 0.01 for kl in found.kl_nats[:4])
        assert len(found.agrees) == 7


def test_pictures_are_not_needed_from_where_nothing_is_attended_to() -> None:
    model = silenced(random_language(layers=6, dtype=torch.float64), 3, "self_attn.o_proj")
    for seed in range(4):
        found = read(model, random_prompt(seed)).blind
        assert found.stable_from <= 3
        assert max(found.kl_nats[3:]) < 1e-12
        assert all(kl > 1e-3 for kl in found.kl_nats[:3])


def test_sequences_side_by_side_are_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.language.walk._MOST_ROWS", 10)
    model = random_language(layers=2, dtype=torch.float64)
    prompts = [lay_out([[1, 4], random_image(2, hidden=32, seed=seed, dtype=torch.float64), [5]]) for seed in range(5)]
    places = model.prompt_positions(prompts[0]).places
    together = side_by_side(model, 0, torch.stack([model.prompt_rows(prompt) for prompt in prompts]), places)
    for prompt, rows in zip(prompts, together, strict=True):
        torch.testing.assert_close(rows, next(walk(model, prompt)).leaving, rtol=0, atol=1e-12)


def test_a_prediction_that_comes_back_is_not_stable_before() -> None:
    best = torch.tensor([1, 2, 0, 2, 2])
    predicted = torch.nn.functional.one_hot(best, 3).double().mul(5).log_softmax(dim=-1)
    found = readings(predicted)
    assert found.agrees == (False, True, False, True, True)
    assert found.stable_from == 3
    assert found.kl_nats[1] == found.kl_nats[3] == 0
    # KL of two softmaxes whose logits 5 and 0 are exchanged: 5 (p - q), p and q the shares of both
    high, low = np.exp(5) / (np.exp(5) + 2), 1 / (np.exp(5) + 2)
    assert found.kl_nats[0] == pytest.approx(5 * (high - low))
