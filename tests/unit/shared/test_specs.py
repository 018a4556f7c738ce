"""What a request may ask: bounds, defaults, and one canonical form for one meaning."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.spec_strategies import budgets, reductions
from vscan.errors import InvalidArgument
from vscan.specs import (
    DEFAULT_REDUCTION,
    Budget,
    KeepRatio,
    KeepTokens,
    PositionPolicy,
    PruneSpec,
    Rater,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
    floor_tokens,
    round_down,
)

BAD_FRACTIONS = [0.0, -0.0, -0.1, 1.0000001, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("fraction", BAD_FRACTIONS)
@pytest.mark.parametrize(
    ("make", "field"), [(Ratio, "budget.ratio"), (TargetAverage, "budget.target_average"), (KeepRatio, "ratio")]
)
def test_a_fraction_is_over_0_to_1(make: Any, field: str, fraction: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make(fraction)
    assert (caught.value.field, caught.value.limit) == (field, "over 0 to 1")


@pytest.mark.parametrize("make", [TokensPerTile, KeepTokens])
@pytest.mark.parametrize("count", [0, -1])
def test_a_count_is_at_least_1(make: Any, count: int) -> None:
    with pytest.raises(InvalidArgument, match="tokens"):
        make(count)


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan, math.inf])
def test_a_local_share_is_0_to_1(share: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ReductionSpec(local_share=share)
    assert (caught.value.field, caught.value.limit) == ("local_share", "0 to 1")


@pytest.mark.parametrize("make", [ReductionSpec, PruneSpec])
@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(make: Any, seed: int) -> None:
    with pytest.raises(InvalidArgument, match="seed"):
        make(seed=seed)
    make(seed=2**64 - 1)


def test_more_tokens_than_a_tile_has_is_refused_with_the_tiles_number() -> None:
    assert TokensPerTile(576).tokens(576) == 576
    with pytest.raises(InvalidArgument) as caught:
        TokensPerTile(577).tokens(576)
    assert caught.value.limit == "576 tokens of a tile"


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [
        (TargetAverage(1 / 9), 96),  # 64 of 576 on average: 96 after stage 1, not floor(95.999...)
        (TargetAverage(1 / 6), 144),
        (TargetAverage(1 / 3), 288),
        (TargetAverage(2 / 3), 576),
        (TargetAverage(1.0), 576),
        (Ratio(1 / 3), 192),
        (Ratio(1.0), 576),
        (Ratio(1e-9), 1),
        (Ratio(0.5), 288),
        (TokensPerTile(7), 7),
    ],
)
def test_tokens_of_the_papers_tile(budget: Budget, tokens: int) -> None:
    assert budget.tokens(576) == tokens


@given(budgets(), st.integers(1, 4096))
def test_a_budget_never_asks_for_nothing_or_more_than_all(budget: Budget, tile_tokens: int) -> None:
    if isinstance(budget, TokensPerTile) and budget.count > tile_tokens:
        with pytest.raises(InvalidArgument):
            budget.tokens(tile_tokens)
    else:
        assert 1 <= budget.tokens(tile_tokens) <= tile_tokens


@pytest.mark.parametrize(
    ("tiles", "shares"),
    [([9, 9, 9, 9], [3, 3, 2, 2]), ([9, 1, 0, 9], [5, 1, 0, 4]), ([2, 1, 2, 4], [2, 1, 2, 4]), ([0, 12], [0, 10])],
)
def test_a_total_is_shared_out(tiles: list[int], shares: list[int]) -> None:
    assert TotalTokens(10).shares(tiles) == shares


@given(st.integers(1, 200), st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any))
def test_a_total_is_kept_to_and_shared_equally(total: int, tiles: list[int]) -> None:
    if total < sum(map(bool, tiles)):
        with pytest.raises(InvalidArgument, match=r"budget\.total_tokens"):
            TotalTokens(total).shares(tiles)
        return
    shares = TotalTokens(total).shares(tiles)
    assert sum(shares) == min(total, sum(tiles))
    assert all(bool(tokens) <= share <= tokens for share, tokens in zip(shares, tiles, strict=True))
    wanting = [share for share, tokens in zip(shares, tiles, strict=True) if share < tokens]
    assert max(wanting, default=0) - min(wanting, default=0) <= 1
    assert max(shares) - min(wanting, default=max(shares)) <= 1, "none has more than one that could take more"
    assert wanting == sorted(wanting, reverse=True)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_fractions_of_whole_numbers_round_as_whole_numbers_do(part: int, whole: int) -> None:
    assert floor_tokens(part / whole * whole) == part
    assert floor_tokens(part / 9) == max(1, part // 9)
    assert round_down(part / whole * whole) == part
    assert round_down(part / 9) == part // 9


@given(reductions(), reductions(filled=True))
def test_filling_twice_is_filling_once(spec: ReductionSpec, defaults: ReductionSpec) -> None:
    filled = spec.filled_from(defaults)
    assert filled.filled_from(defaults) == filled
    assert filled.filled_from(DEFAULT_REDUCTION) == filled  # nothing is left to fill: the two services agree
    assert filled.canonical()


@given(reductions(), reductions(filled=True))
def test_what_a_request_says_wins_where_the_method_reads_it(spec: ReductionSpec, defaults: ReductionSpec) -> None:
    filled = spec.filled_from(defaults)
    for name in ("method", "budget", "local_share", "merge", "seed"):
        said, result = getattr(spec, name), getattr(filled, name)
        assert result is None or result == (getattr(defaults, name) if said is None else said)


@given(reductions(filled=True), reductions(filled=True))
def test_equal_work_has_one_form_and_other_work_another(one: ReductionSpec, other: ReductionSpec) -> None:
    one, other = one.filled_from(DEFAULT_REDUCTION), other.filled_from(DEFAULT_REDUCTION)
    assert (one == other) == (one.canonical() == other.canonical())


@pytest.mark.parametrize(
    ("method", "unread"),
    [
        (ReductionMethod.NONE, {"budget": Ratio(0.5), "local_share": 0.1, "merge": False, "seed": 7}),
        (ReductionMethod.POOL, {"local_share": 0.1, "merge": False, "seed": 7}),
        (ReductionMethod.VSCAN, {"seed": 7}),
        (ReductionMethod.GLOBAL, {"local_share": 0.1, "seed": 7}),
        (ReductionMethod.LOCAL, {"local_share": 0.1, "seed": 7}),
        (ReductionMethod.RANDOM, {"local_share": 0.1}),
    ],
)
def test_what_a_method_does_not_read_is_not_in_its_form(method: ReductionMethod, unread: dict[str, Any]) -> None:
    plain = ReductionSpec(method=method)
    assert (
        replace(plain, **unread).filled_from(DEFAULT_REDUCTION).canonical() == plain.filled_from(DEFAULT_REDUCTION).canonical()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": ReductionMethod.GLOBAL},
        {"budget": Ratio(0.25)},
        {"budget": TargetAverage(0.25)},
        {"budget": TokensPerTile(64)},
        {"local_share": 0.25},
        {"merge": False},
    ],
)
def test_what_a_method_reads_is_in_its_form(changes: dict[str, Any]) -> None:
    changed = replace(DEFAULT_REDUCTION, **changes).filled_from(DEFAULT_REDUCTION)
    assert changed.canonical() != DEFAULT_REDUCTION.filled_from(DEFAULT_REDUCTION).canonical()


def test_the_canonical_form_is_written_down() -> None:
    # A change here gives every cached entry another key.
    assert DEFAULT_REDUCTION.filled_from(DEFAULT_REDUCTION).canonical() == (
        b'["vscan",["TargetAverage","0x1.c71c71c71c71cp-4"],"0x1.0000000000000p-1",true,null]'
    )
    assert ReductionSpec(method=ReductionMethod.NONE).canonical() == b'["none",null,null,null,null]'


def test_minus_zero_is_zero() -> None:
    forms = {ReductionSpec(local_share=share).filled_from(DEFAULT_REDUCTION).canonical() for share in (0.0, -0.0, 0)}
    assert len(forms) == 1


@pytest.mark.parametrize(
    "spec",
    [
        ReductionSpec(),
        DEFAULT_REDUCTION,  # a seed that VSCAN does not read
        ReductionSpec(method=ReductionMethod.VSCAN, budget=Ratio(0.5), merge=True),
        ReductionSpec(method=ReductionMethod.RANDOM, budget=Ratio(0.5), merge=True),
        ReductionSpec(method=ReductionMethod.POOL),
        ReductionSpec(method=ReductionMethod.NONE, budget=Ratio(0.5)),
    ],
)
def test_only_a_filled_spec_has_a_form(spec: ReductionSpec) -> None:
    with pytest.raises(ValueError, match="filled"):
        spec.canonical()


def test_defaults_without_a_method_fill_nothing() -> None:
    with pytest.raises(ValueError, match="method"):
        ReductionSpec().filled_from(ReductionSpec())


def test_pruning_takes_what_is_unset_from_the_defaults() -> None:
    defaults = PruneSpec(rater=Rater.LAST_TOKEN, seed=0, positions=PositionPolicy.RENUMBER, budgets=(KeepRatio(0.5),))
    assert PruneSpec().filled_from(defaults) == replace(defaults, budgets=())
    own = PruneSpec(rater=Rater.RANDOM, seed=5, positions=PositionPolicy.KEEP, budgets=(KeepTokens(3),))
    assert own.filled_from(defaults) == own
