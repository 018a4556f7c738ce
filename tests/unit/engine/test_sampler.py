from collections import Counter
from typing import Any

import pytest
import torch

from decoder_service.request import Sampling
from decoder_service.runner.sampler import Sampler, sample

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.5])


def sampler(**fields: Any) -> Sampler:
    return Sampler(Sampling(max_new_tokens=8, **fields))


def draws(count: int, **fields: Any) -> list[int]:
    own = sampler(**fields)
    return [own.draw(LOGITS) for _ in range(count)]


def test_greedy_takes_the_largest() -> None:
    tokens = sample(torch.stack([LOGITS, -LOGITS]), [sampler(), sampler()])
    assert [token.token_id for token in tokens] == [1, 3]
    assert tokens[0].logprob is None
    assert tokens[0].top == ()


def test_the_same_seed_draws_the_same_tokens() -> None:
    assert draws(40, temperature=1.0, seed=5) == draws(40, temperature=1.0, seed=5)
    assert draws(40, temperature=1.0, seed=5) != draws(40, temperature=1.0, seed=6)
    assert draws(3, temperature=1.0, seed=2**64 - 1) == draws(3, temperature=1.0, seed=2**64 - 1)


def test_company_in_the_step_changes_nothing() -> None:
    alone = sampler(temperature=1.0, seed=9)
    together = sampler(temperature=1.0, seed=9)
    company = sampler(temperature=2.0, seed=1)
    for step in range(20):
        logits = LOGITS.roll(step)
        pair = sample(torch.stack([LOGITS, logits]), [company, together])
        assert pair[1] == sample(logits[None], [alone])[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    count = 4000
    found = Counter(draws(count, temperature=temperature, seed=1))
    expected = (LOGITS / temperature).softmax(dim=0)
    for token, probability in enumerate(expected.tolist()):
        spread = (probability * (1 - probability) / count) ** 0.5
        assert abs(found[token] / count - probability) < 5 * spread + 1e-9


@pytest.mark.parametrize("temperature", [1e-300, 1e-307, 1e-308, 5e-324])
def test_the_lowest_temperatures_take_the_largest(temperature: float) -> None:
    for logits in (LOGITS, LOGITS * 1e30, -LOGITS, torch.tensor([float("-inf"), 2.0, -3.0]), LOGITS.bfloat16()):
        assert {sampler(temperature=temperature, seed=seed).draw(logits) for seed in range(20)} == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [1e-308, 5e-324])
def test_the_lowest_temperatures_draw_among_equals(temperature: float) -> None:
    equals = torch.tensor([4.0, 1.0, 4.0])
    assert {sampler(temperature=temperature, seed=seed).draw(equals) for seed in range(40)} == {0, 2}


def test_top_k_keeps_the_k_most_likely() -> None:
    assert set(draws(300, temperature=5.0, top_k=2)) == {1, 2}
    assert set(draws(300, temperature=5.0, top_k=1)) == {1}
    assert set(draws(900, temperature=5.0, top_k=99)) == {0, 1, 2, 3, 4}


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    # By likelihood the tokens are 1 2 0 4 3.
    probabilities = LOGITS.softmax(dim=0)
    first, second = float(probabilities[1]), float(probabilities[2])
    assert set(draws(300, temperature=1.0, top_p=first - 1e-3)) == {1}
    assert set(draws(600, temperature=1.0, top_p=first + 1e-3)) == {1, 2}
    assert set(draws(900, temperature=1.0, top_p=first + second + 1e-3)) == {0, 1, 2}
    assert set(draws(5, temperature=1.0, top_p=1e-9)) == {1}


def test_top_p_is_of_what_top_k_left() -> None:
    # Of tokens 1 and 2 alone, token 1 has .73.
    assert set(draws(300, temperature=1.0, top_k=2, top_p=0.70)) == {1}
    assert set(draws(600, temperature=1.0, top_k=2, top_p=0.75)) == {1, 2}


def test_log_probabilities_are_the_models_own() -> None:
    token = sample(LOGITS[None], [sampler(temperature=3.0, top_k=1, logprobs=3)])[0]
    expected = LOGITS.log_softmax(dim=0)
    assert token.token_id == 1
    assert token.logprob == pytest.approx(float(expected[1]))
    assert [token_id for token_id, _ in token.top] == [1, 2, 0]
    assert [logprob for _, logprob in token.top] == pytest.approx([float(expected[place]) for place in (1, 2, 0)])


def test_more_log_probabilities_than_tokens_are_all_tokens() -> None:
    assert len(sample(LOGITS[None], [sampler(logprobs=20)])[0].top) == 5
