import math
from typing import Any

import pytest

from decoder_service.budgets import tokens_to_keep
from decoder_service.pruning import (
    DEFAULT_KEEP,
    budgets_for_average,
    default_prune,
    plan_pruning,
    visual_tokens_average,
)
from decoder_service.request import LayerPruning, Pruning
from vscan.errors import InvalidArgument
from vscan.specs import (
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
)

FILLED = default_prune(PositionPolicy.RENUMBER)
PAPER: dict[str, Any] = {
    "prune_layers": (16,),
    "layers": 32,
    "visual_tokens": 96,
    "visual_unreduced": 576,
    "images": 1,
}


def reduction(budget: Any = None) -> ReductionSpec:
    return ReductionSpec(method=ReductionMethod.VSCAN, budget=budget, local_share=0.5, merge=True)


def plan(spec: PruneSpec = FILLED, budget: Any = None, **changes: Any) -> Pruning:
    return plan_pruning(spec.filled_from(FILLED), reduction=reduction(budget), **(PAPER | changes))


def test_the_papers_budget_is_a_third_at_half_the_layers() -> None:
    assert plan(budget=TargetAverage(1 / 9)).budgets == (KeepTokens(32),)


def test_without_a_target_a_third_survives_at_each_layer() -> None:
    assert plan(budget=TokensPerTile(96)).budgets == (DEFAULT_KEEP,)
    assert plan(budget=Ratio(0.25), prune_layers=(8, 16)).budgets == (DEFAULT_KEEP, DEFAULT_KEEP)
    assert plan(budget=Ratio(0.25), prune_layers=(8, 16), default_keep=KeepRatio(0.5)).budgets == (KeepRatio(0.5),) * 2
    assert plan(budget=TargetAverage(1 / 9), default_keep=KeepRatio(0.5)).budgets == (KeepTokens(32),)
    assert tokens_to_keep(DEFAULT_KEEP, visual_tokens=96, images=1) == 32


@pytest.mark.parametrize("prune_layers", [(3,), (16,), (31,), (8, 16), (4, 12, 20)])
@pytest.mark.parametrize("average", [16, 64, 100, 192])
def test_the_average_over_the_layers_meets_the_target_from_below(prune_layers: tuple[int, ...], average: int) -> None:
    arriving = min(576, average * 3 // 2)
    budgets = budgets_for_average(average, prune_layers=prune_layers, layers=32, visual_tokens=arriving)
    done = [LayerPruning(layer, 0, (tuple(range(budget.count)),)) for layer, budget in zip(prune_layers, budgets, strict=True)]
    reached = visual_tokens_average(arriving, done, layers=32)
    smallest = visual_tokens_average(arriving, [LayerPruning(layer, 0, ((0,),)) for layer in prune_layers], layers=32)
    # Below by less than one token at each pruning layer; or as low as one surviving token lets it be.
    assert reached <= max(average, smallest) + 1e-6
    assert reached > min(average - len(prune_layers), arriving) - 1e-6


def test_one_layer_follows_the_formula_for_every_average() -> None:
    for average in range(1, 384):
        arriving = math.floor(1.5 * average)
        exact = (average * 32 - arriving * 16) / 16
        expected = max(1, min(arriving, math.floor(exact + 1e-9)))
        budgets = budgets_for_average(average, prune_layers=(16,), layers=32, visual_tokens=arriving)
        assert budgets == (KeepTokens(expected),), average


def test_a_target_that_stage_one_already_meets_keeps_all() -> None:
    assert plan(budget=TargetAverage(1.0), visual_tokens=576).budgets == (KeepTokens(576),)


def test_every_image_keeps_a_token_even_when_the_target_is_out_of_reach() -> None:
    budgets = budgets_for_average(0.5, prune_layers=(16,), layers=32, visual_tokens=96, images=3)
    assert budgets == (KeepTokens(3),)


def test_budgets_of_the_request_come_first() -> None:
    asked = PruneSpec(budgets=(KeepTokens(10), KeepRatio(0.5)))
    planned = plan(asked, budget=TargetAverage(1 / 9), prune_layers=(8, 16))
    assert planned.layers == (8, 16)
    assert planned.budgets == (KeepTokens(10), KeepRatio(0.5))


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_budgets_than_of_layers_is_refused(count: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^ask\.budgets: .*\(8, 16\)"):
        plan(PruneSpec(budgets=(KeepTokens(4),) * count), prune_layers=(8, 16), field="ask")


def test_drop_all_and_none_ignore_budgets() -> None:
    many = (KeepTokens(1),) * 5
    dropped = plan(PruneSpec(rater=Rater.DROP_ALL, budgets=many), prune_layers=(8, 16))
    assert (dropped.layers, dropped.budgets, dropped.rater) == ((8,), (), Rater.DROP_ALL)
    assert plan(PruneSpec(rater=Rater.NONE, budgets=many)).layers == ()


def test_nothing_is_pruned_of_a_prompt_without_images_or_without_pruning_layers() -> None:
    assert plan(visual_tokens=0, visual_unreduced=0, images=0).layers == ()
    assert plan(prune_layers=()).layers == ()


def test_seed_rater_and_positions_reach_the_plan() -> None:
    spec = PruneSpec(rater=Rater.RANDOM, seed=7, positions=PositionPolicy.KEEP)
    planned = plan(spec)
    assert (planned.rater, planned.seed, planned.positions) == (Rater.RANDOM, 7, PositionPolicy.KEEP)


def test_an_unfilled_spec_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="filled"):
        plan_pruning(PruneSpec(), reduction=reduction(), **PAPER)


@pytest.mark.parametrize(
    ("budget", "visual", "images", "kept"),
    [
        (KeepTokens(5), 9, 1, 5),
        (KeepTokens(50), 9, 1, 9),
        (KeepTokens(1), 9, 4, 4),
        (KeepRatio(1 / 3), 9, 1, 3),
        (KeepRatio(0.5), 9, 1, 4),
        (KeepRatio(0.01), 9, 1, 1),
        (KeepRatio(1.0), 9, 1, 9),
    ],
)
def test_tokens_to_keep(budget: KeepTokens | KeepRatio, visual: int, images: int, kept: int) -> None:
    assert tokens_to_keep(budget, visual_tokens=visual, images=images) == kept


def test_average_over_layers() -> None:
    assert visual_tokens_average(96, [LayerPruning(16, 96, (tuple(range(32)),))], layers=32) == 64
    assert visual_tokens_average(96, [], layers=32) == 96
    two = [LayerPruning(8, 96, ((1, 2), (3,))), LayerPruning(24, 3, ((1,), ()))]
    assert visual_tokens_average(96, two, layers=32) == (96 * 8 + 3 * 16 + 1 * 8) / 32
