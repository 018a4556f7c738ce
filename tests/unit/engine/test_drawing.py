"""The distribution that is drawn from is the one that transformers' own processors leave."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from decoder_service.request import Sampling
from decoder_service.runner.drawing import Drawing, uniform

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.5], dtype=torch.float64)
_GRID = 2000


def drawn_distribution(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """How often each token is drawn by numbers spread evenly over [0, 1): its probability to within two steps of the grid."""
    drawing = Drawing([sampling], vocabulary=logits.shape[0], device=logits.device)
    tokens = torch.cat([drawing.draw(logits[None], [(step + 0.5) / _GRID]) for step in range(_GRID)])
    return tokens.bincount(minlength=logits.shape[0]) / _GRID


def reference(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    processors = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    scores: torch.Tensor = processors(torch.zeros(1, 0, dtype=torch.int64), logits[None].clone())
    return scores.softmax(dim=-1)[0]


def sampling(**fields: float) -> Sampling:
    return Sampling(max_new_tokens=1, **fields)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.95, 0.613, 0.2]),
    min_p=st.sampled_from([0.0, 0.05, 0.31, 1.0]),
)
def test_it_is_transformers_distribution(seed: int, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
    own = sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = reference(logits, own)
    found = drawn_distribution(logits, own)
    assert (found - expected).abs().max() <= 2 / _GRID
    assert set(found.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())


def drawn_tokens(**fields: float) -> set[int]:
    return set(drawn_distribution(LOGITS, sampling(**fields)).nonzero().flatten().tolist())


def test_top_k_keeps_the_k_most_likely() -> None:
    assert drawn_tokens(temperature=5.0, top_k=2) == {1, 2}
    assert drawn_tokens(temperature=5.0, top_k=1) == {1}
    assert drawn_tokens(temperature=5.0, top_k=99) == {0, 1, 2, 3, 4}


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    # By likelihood the tokens are 1 2 0 4 3.
    probabilities = LOGITS.softmax(dim=0)
    first, second = float(probabilities[1]), float(probabilities[2])
    assert drawn_tokens(temperature=1.0, top_p=first - 1e-3) == {1}
    assert drawn_tokens(temperature=1.0, top_p=first + 1e-3) == {1, 2}
    assert drawn_tokens(temperature=1.0, top_p=first + second + 1e-3) == {0, 1, 2}
    assert drawn_tokens(temperature=1.0, top_p=1e-9) == {1}


def test_top_p_is_of_what_top_k_left() -> None:
    # Of tokens 1 and 2 alone, token 1 has .73.
    assert drawn_tokens(temperature=1.0, top_k=2, top_p=0.70) == {1}
    assert drawn_tokens(temperature=1.0, top_k=2, top_p=0.75) == {1, 2}


def test_min_p_is_a_share_of_the_most_likely() -> None:
    # Token 2 has e^-1 = .37 of token 1's probability, token 0 e^-2 = .14.
    assert drawn_tokens(temperature=1.0, min_p=0.36) == {1, 2}
    assert drawn_tokens(temperature=1.0, min_p=0.38) == {1}
    assert drawn_tokens(temperature=1.0, min_p=0.13) == {0, 1, 2}
    assert drawn_tokens(temperature=2.0, min_p=0.38) == {1, 2}  # after the temperature: e^-.5 = .61, e^-1 = .37


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("fields", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_the_ends_of_the_range_draw_no_impossible_token(number: float, fields: dict[str, float]) -> None:
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf, 1.0, -800.0, -torch.inf], dtype=torch.float64)
    drawing = Drawing([sampling(temperature=1.0, **fields)], vocabulary=6, device=logits.device)
    assert drawing.draw(logits[None], [number]).item() in (1, 3)


def test_numbers_are_spread_evenly_and_each_seed_has_its_own() -> None:
    numbers = [uniform(seed, number) for seed in (0, 1, 2**64 - 1) for number in range(2000)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    tenths = Counter(int(number * 10) for number in numbers)
    assert all(abs(tenths[tenth] - 600) < 5 * 24 for tenth in range(10))


def test_a_flat_distribution_is_cut_as_exactly_as_a_peaked_one() -> None:
    """More tokens than are looked at first, beside a row where those are enough: neither changes the other."""
    generator = torch.Generator().manual_seed(4)
    flat = torch.randn(5000, dtype=torch.float64, generator=generator) / 10
    peaked = torch.randn(5000, dtype=torch.float64, generator=generator) * 5
    own = sampling(temperature=1.0, top_p=0.9)
    both = Drawing([own, own], vocabulary=5000, device=flat.device)
    numbers = [(step + 0.5) / _GRID for step in range(0, _GRID, 20)]
    drawn = torch.stack([both.draw(torch.stack([flat, peaked]), [number, number]) for number in numbers])
    for row, logits in enumerate((flat, peaked)):
        alone = Drawing([own], vocabulary=5000, device=flat.device)
        assert [int(alone.draw(logits[None], [number])) for number in numbers] == drawn[:, row].tolist()
        assert bool((reference(logits, own)[drawn[:, row]] > 0).all())
    # Numbers spread evenly reach almost to the end of the tokens that stay, in the order of the vocabulary.
    stay = reference(flat, own).nonzero().flatten()
    assert drawn[-1, 0] >= stay[int(len(stay) * 0.98)]


def test_equals_of_the_last_one_stay_too() -> None:
    logits = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    found = drawn_distribution(logits, sampling(temperature=1.0, top_k=3))
    assert found.tolist() == pytest.approx(logits.softmax(dim=0).tolist(), abs=2 / _GRID)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_no_distribution_names_a_token_that_is_there(broken: float) -> None:
    rows = torch.stack([torch.full_like(LOGITS, broken), LOGITS])
    drawing = Drawing([Sampling(max_new_tokens=1, temperature=1.0)] * 2, vocabulary=5, device=rows.device)
    tokens = drawing.draw(rows, [0.5, 0.5]).tolist()
    assert all(0 <= token < 5 for token in tokens)
    assert tokens[1] == drawing.draw(rows.flip(0), [0.5, 0.5]).tolist()[0]
