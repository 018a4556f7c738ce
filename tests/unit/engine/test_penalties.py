"""Penalties, against transformers' own processor and a plain loop."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from decoder_service.request import ImageSpan, Prompt, Sampling
from decoder_service.runner.penalties import Penalties, SeenTokens
from decoder_service.runner.sampler import Sampler
from tests.support.sampling import ids_of, sample, state, tokens

VOCABULARY = 12
IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9)


def penalised(logits: torch.Tensor, prompt: Prompt, said: list[int], *terms: float) -> torch.Tensor:
    """Terms: repetition, frequency, presence."""
    seen = SeenTokens(prompt, max_new_tokens=len(said))
    for token in said:
        seen.add(token)
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    own = Sampling(max_new_tokens=1, **dict(zip(names, terms, strict=True)))  # type: ignore[arg-type]
    rows = torch.stack([logits, logits])
    Penalties([own], [seen], rows.device).apply(rows, torch.tensor([1]))
    assert rows[0].equal(logits)
    return rows[1]


def some_logits(seed: int) -> torch.Tensor:
    return torch.randn(VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None)
@given(seed=st.integers(0, 99), asked=IDS, said=IDS | st.just([]), penalty=st.floats(0.1, 2.0))
def test_repetition_is_transformers(seed: int, asked: list[int], said: list[int], penalty: float) -> None:
    logits = some_logits(seed)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([asked + said]), logits[None].clone())[0]
    torch.testing.assert_close(penalised(logits, Prompt(tuple(asked)), said, penalty, 0.0, 0.0), expected)


@settings(deadline=None)
@given(seed=st.integers(0, 99), asked=IDS, said=IDS | st.just([]), frequency=st.floats(-2, 2), presence=st.floats(-2, 2))
def test_frequency_and_presence_count_the_answer_alone(
    seed: int, asked: list[int], said: list[int], frequency: float, presence: float
) -> None:
    logits = some_logits(seed)
    expected = logits.clone()
    for token in range(VOCABULARY):
        expected[token] -= said.count(token) * frequency + (token in said) * presence
    torch.testing.assert_close(penalised(logits, Prompt(tuple(asked)), said, 1.0, frequency, presence), expected)


def test_visual_rows_never_count() -> None:
    """The placeholder 5 stands where an image is; elsewhere it would be a token as any other."""
    logits = some_logits(1)
    prompt = Prompt((3, 5, 5, 5, 4), spans=(ImageSpan(0, 1, 3),))
    expected = RepetitionPenaltyLogitsProcessor(1.5)(torch.tensor([[3, 4]]), logits[None].clone())[0]
    torch.testing.assert_close(penalised(logits, prompt, [], 1.5, 0.0, 0.0), expected)


def greedy(steps: int, **fields: Any) -> list[int]:
    own, sampler = state(**fields), Sampler()
    logits = torch.tensor([[0.0, 2.0, 1.5, 1.0]])
    return [tokens(sampler.sample(logits, [own]))[0].token_id for _ in range(steps)]


def test_a_greedy_answer_is_penalised_too() -> None:
    assert greedy(4) == [1, 1, 1, 1]
    assert greedy(5, presence_penalty=0.75) == [1, 2, 1, 1, 1]
    assert greedy(6, frequency_penalty=0.75) == [1, 2, 1, 3, 2, 1]
    assert greedy(4, repetition_penalty=2.0, prompt=Prompt((1,))) == [2, 1, 1, 1]


def test_rows_have_penalties_of_their_own() -> None:
    logits = torch.tensor([0.0, 2.0, 1.5, 1.0]).expand(4, -1)
    states = [state(), state(repetition_penalty=2.0, prompt=Prompt((1,))), state(presence_penalty=2.0), state(logprobs=1)]
    sampler = Sampler()
    steps = [ids_of(tokens(sampler.sample(logits, states))) for _ in range(2)]
    assert steps == [[1, 2, 1, 1], [1, 1, 2, 1]]


def test_what_a_constraint_or_a_model_rules_out_stays_ruled_out() -> None:
    logits = torch.tensor([[-torch.inf, -torch.inf, -5.0]])
    own = state(repetition_penalty=0.5, presence_penalty=-2.0, frequency_penalty=-2.0, temperature=1.0, prompt=Prompt((0,)))
    assert [sample(logits, own)[0].token_id for _ in range(5)] == [2] * 5
