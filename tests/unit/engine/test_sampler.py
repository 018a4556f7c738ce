"""What a row gets depends on that row alone: greedy, drawn, penalised, constrained, in any company."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from decoder_service.constraint.grammar import compile_grammar
from decoder_service.constraint.vocabulary import make_vocabulary
from decoder_service.language.tokens import SpecialTokens
from decoder_service.limits import MAX_PENALTY, MAX_REPETITION_PENALTY, MAX_TEMPERATURE, MIN_REPETITION_PENALTY
from decoder_service.request import Prompt
from decoder_service.runner.sampler import Sampler
from tests.support import tokenizers as kinds
from tests.support.sampling import draws, ids_of, sample, state
from tests.support.sampling import tokens as tokens_of
from vscan.errors import InternalError
from vscan.specs import Regex

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.5])


def test_greedy_takes_the_largest() -> None:
    tokens = sample(torch.stack([LOGITS, -LOGITS]), state(), state())
    assert ids_of(tokens) == [1, 3]
    assert tokens[0].logprob is None
    assert tokens[0].top == ()


def test_a_row_that_asks_for_nothing_special_leaves_no_trace() -> None:
    own = state(temperature=0, top_k=3, top_p=0.5, min_p=0.5, seed=4)
    assert own.plain
    before = own.next_number()
    sample(LOGITS[None], own)
    assert own.next_number() == before


def test_the_same_seed_draws_the_same_tokens() -> None:
    assert draws(40, LOGITS, temperature=1.0, seed=5) == draws(40, LOGITS, temperature=1.0, seed=5)
    assert draws(40, LOGITS, temperature=1.0, seed=5) != draws(40, LOGITS, temperature=1.0, seed=6)
    assert draws(3, LOGITS, temperature=1.0, seed=2**64 - 1) == draws(3, LOGITS, temperature=1.0, seed=2**64 - 1)


def test_the_draws_of_a_seed_stay_what_they_are() -> None:
    """Another release, machine or torch draws the same: an answer can be had again."""
    assert draws(12, torch.zeros(100), temperature=1.0, seed=7) == [72, 80, 24, 18, 34, 62, 25, 20, 45, 36, 76, 24]


def random_fields(generator: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "temperature": generator.choice([0.0, 0.7, 1.5]),
        "top_k": generator.choice([0, 1, 7]),
        "top_p": generator.choice([1.0, 0.6]),
        "min_p": generator.choice([0.0, 0.2]),
        "repetition_penalty": generator.choice([1.0, 1.4]),
        "frequency_penalty": generator.choice([0.0, 0.5]),
        "presence_penalty": generator.choice([0.0, -0.5]),
        "logprobs": generator.choice([0, 2]),
        "seed": generator.getrandbits(64),
    }
    return {name: value for name, value in fields.items() if generator.random() < 0.6}


@pytest.mark.parametrize("seed", range(12))
def test_company_in_the_step_changes_nothing(seed: int) -> None:
    """One request alone, and again among others that come and go, at another row each time."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    core = kinds.byte_level().backend_tokenizer
    vocabulary = make_vocabulary(core, SpecialTokens(4, frozenset({2}), frozenset(range(5)), frozenset()))
    grammar = compile_grammar(Regex("[a-z ]{1,30}"), vocabulary) if seed % 2 else None
    fields, prompt = random_fields(generator), Prompt((3, 5, 8))
    alone, together = (state(prompt=prompt, grammar=grammar, **fields) for _ in range(2))
    sampler, company = Sampler(), [state(**random_fields(generator)) for _ in range(4)]
    for _ in range(15):
        own = torch.randn(core.get_vocab_size() + 3) * 3
        if generator.random() < 0.4:
            company[generator.randrange(4)] = state(prompt=prompt, grammar=grammar, **random_fields(generator))
        row = generator.randrange(5)
        states = [*company[:row], together, *company[row:]]
        logits = torch.randn(5, own.shape[0]) * 3
        logits[row] = own
        [expected] = sample(own[None], alone)
        got = sampler.sample(logits, states)[row]
        assert got == expected
        if expected.complete or expected.token_id == 2:
            break


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    count = 4000
    found = Counter(draws(count, LOGITS, temperature=temperature, seed=1))
    expected = (LOGITS / temperature).softmax(dim=0)
    for token, probability in enumerate(expected.tolist()):
        spread = (probability * (1 - probability) / count) ** 0.5
        assert abs(found[token] / count - probability) < 5 * spread + 1e-9


@pytest.mark.parametrize("temperature", [1e-300, 1e-307, 1e-308, 5e-324])
def test_the_lowest_temperatures_take_the_largest(temperature: float) -> None:
    for logits in (LOGITS, LOGITS * 1e30, -LOGITS, torch.tensor([float("-inf"), 2.0, -3.0]), LOGITS.bfloat16()):
        for fields in ({}, {"top_p": 0.9}):
            drawn = {draws(1, logits, temperature=temperature, seed=seed, **fields)[0] for seed in range(20)}
            assert drawn == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [1e-308, 5e-324])
def test_the_lowest_temperatures_draw_among_equals(temperature: float) -> None:
    equals = torch.tensor([4.0, 1.0, 4.0])
    assert {draws(1, equals, temperature=temperature, seed=seed)[0] for seed in range(40)} == {0, 2}


def test_log_probabilities_are_the_models_own() -> None:
    own = state(temperature=3.0, top_k=1, logprobs=3, repetition_penalty=2.0, presence_penalty=1.0, prompt=Prompt((2,)))
    token = sample(LOGITS[None], own)[0]
    expected = LOGITS.log_softmax(dim=0)
    assert token.token_id == 1
    assert token.logprob == pytest.approx(float(expected[1]))
    assert [token_id for token_id, _ in token.top] == [1, 2, 0]
    assert [logprob for _, logprob in token.top] == pytest.approx([float(expected[place]) for place in (1, 2, 0)])


def test_each_row_gets_as_many_log_probabilities_as_it_asked_for() -> None:
    tokens = sample(LOGITS.expand(3, -1), state(logprobs=2), state(), state(logprobs=20))
    assert [len(token.top) for token in tokens] == [2, 0, 5]


def test_a_constraint_masks_what_may_not_come() -> None:
    core = kinds.byte_level().backend_tokenizer
    vocabulary = make_vocabulary(core, SpecialTokens(4, frozenset({2}), frozenset(range(5)), frozenset()))
    grammar = compile_grammar(Regex("(yes|no)"), vocabulary)
    free, greedy, drawn = state(), state(grammar=grammar), state(grammar=grammar, temperature=2.0, seed=3)
    sampler = Sampler()
    made: dict[str, list[int]] = {"greedy": [], "drawn": []}
    torch.manual_seed(0)
    for _ in range(3):
        states = {"greedy": greedy, "drawn": drawn}
        running = {name: own for name, own in states.items() if own.walk and not own.walk.complete}
        logits = torch.randn(1 + len(running), core.get_vocab_size() + 40)  # a head wider than the tokenizer
        tokens = tokens_of(sampler.sample(logits, [free, *running.values()]))
        assert tokens[0].token_id == int(logits[0].argmax())
        assert not tokens[0].complete
        for name, token in zip(running, tokens[1:], strict=True):
            made[name].append(token.token_id)
            assert token.complete == (core.decode(made[name]) in ("yes", "no"))
    assert core.decode(made["greedy"]) in ("yes", "no")
    assert core.decode(made["drawn"]) in ("yes", "no")


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9, "top_k": 3}, {"presence_penalty": 1.0}]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_without_numbers_has_no_token_and_changes_no_other(fields: dict[str, Any], value: float) -> None:
    company = [state(), state(temperature=1.5, seed=3, logprobs=2), state(repetition_penalty=1.3, logprobs=1), state(top_k=2)]
    broken = LOGITS.clone()
    broken[2] = value
    victim = state(logprobs=2, **fields)
    before = victim.next_number()
    found = Sampler().sample(torch.stack([LOGITS, -LOGITS, broken, LOGITS / 2, LOGITS]), [*company[:2], victim, *company[2:]])
    assert isinstance(found[2], InternalError)
    assert victim.next_number() == before
    again = [state(), state(temperature=1.5, seed=3, logprobs=2), state(repetition_penalty=1.3, logprobs=1), state(top_k=2)]
    assert found[:2] + found[3:] == Sampler().sample(torch.stack([LOGITS, -LOGITS, LOGITS / 2, LOGITS]), again)


def test_what_the_model_rules_out_is_no_fault() -> None:
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf])
    assert ids_of(sample(logits.expand(2, -1), state(), state(temperature=1.0))) == [1, 1]
    [nothing] = Sampler().sample(torch.full((1, 3), -torch.inf), [state()])
    assert isinstance(nothing, InternalError)


def extremes() -> list[dict[str, Any]]:
    """Each field at the ends of what a request may ask for, alone and all together."""
    ends: dict[str, tuple[float, float]] = {
        "temperature": (5e-324, MAX_TEMPERATURE),
        "top_p": (5e-324, 1.0),
        "min_p": (5e-324, 1.0),
        "repetition_penalty": (MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY),
        "presence_penalty": (-MAX_PENALTY, MAX_PENALTY),
        "frequency_penalty": (-MAX_PENALTY, MAX_PENALTY),
        "top_k": (1, 2**32 - 1),
    }
    alone = [{name: value, "temperature": 1.0} | {name: value} for name, both in ends.items() for value in both]
    return alone + [{name: both[side] for name, both in ends.items()} for side in (0, 1)]


@pytest.mark.parametrize("fields", extremes())
def test_no_field_takes_the_numbers_from_a_row(fields: dict[str, Any]) -> None:
    """Whatever the logits are, as long as they are finite: also those that are as large as there are."""
    prompt = Prompt((0, 1, 2))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        most = torch.finfo(dtype).max
        for logits in ([1.0, 3.0, 2.0, -1.0], [most, -most, most / 2, 0.0], [-most, -most, -most, -torch.inf], [0.0] * 4):
            own, sampler = state(prompt=prompt, **fields), Sampler()
            for _ in range(4):
                [token] = tokens_of(sampler.sample(torch.tensor([logits], dtype=dtype), [own]))
                assert logits[token.token_id] > -torch.inf
