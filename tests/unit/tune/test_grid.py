"""What is measured, in which order, and how often a service has to be restarted for it."""

from dataclasses import replace
from itertools import pairwise, product

import pytest

from decoder_service.pruning import plan_pruning
from embedded_model.config import LAYERS, VISUAL_TOKENS
from encoder_service.reduction.budget import Grid, plan_reduction
from studies.tune.grid import DEFAULT_BUDGETS, Known, Wanted, average_share, build_points, check_budget, filled
from studies.tune.point import CANDIDATE, NO_REDUCTION, Deployment, Point, in_order, restarts
from tests.unit.tune.made import HERE, at, point
from vscan.errors import InvalidArgument
from vscan.specs import KeepRatio, KeepTokens, PositionPolicy, Rater, ReductionMethod

KNOWN = Known(layers=LAYERS, deep_layer=6, tokens_per_tile=VISUAL_TOKENS, shallow_layer=2, window=6, prune_layers=(4,))
VALUES = Wanted(
    shallow_layers=(2, 1, 4),
    windows=(6, 3),
    local_shares=(0.5,),
    prune_layers=((4,), (2,), (5,)),
    raters=(Rater.LAST_TOKEN,),
    budgets=DEFAULT_BUDGETS,
    keeps=(None,),
)
POINTS = build_points(VALUES, KNOWN)


def planned_average(point: Point) -> float:
    """Visual tokens on average over the layers, as encoder and decoder plan them for the embedded model."""
    side = int(VISUAL_TOKENS**0.5)
    reduction = point.reduction(0)
    first = plan_reduction(reduction, Grid(side, side), 6).keep_tokens
    pruning = plan_pruning(
        replace(point.prune(0), positions=PositionPolicy.RENUMBER),
        reduction=reduction,
        prune_layers=point.deployment.prune_layers,
        layers=LAYERS,
        visual_tokens=first,
        visual_unreduced=VISUAL_TOKENS,
        images=1,
    )
    counts = [first]
    for number, _ in enumerate(pruning.layers):
        budget = pruning.budgets[number] if pruning.budgets else None  # none: all are dropped
        kept = int(counts[-1] * budget.fraction) if isinstance(budget, KeepRatio) else budget
        counts.append(kept.count if isinstance(kept, KeepTokens) else kept or 0)
    spans = [high - low for low, high in pairwise((0, *pruning.layers, LAYERS))]
    return sum(count * span for count, span in zip(counts, spans, strict=True)) / LAYERS


def test_every_combination_is_a_point_and_no_reduction_is_the_first() -> None:
    candidates = [each for each in POINTS if each.kind == CANDIDATE]
    assert POINTS[0].kind == NO_REDUCTION
    assert len(candidates) == 3 * 2 * 3 * 3
    assert len({each.name for each in POINTS}) == len(set(POINTS)) == len(POINTS)


def test_the_default_grid_lies_around_what_the_model_has_by_itself() -> None:
    assert filled(Wanted(), KNOWN) == VALUES
    large = Known(layers=32, deep_layer=22, tokens_per_tile=576, shallow_layer=5, window=6, prune_layers=(16,))
    around = filled(Wanted(windows=(8,)), large)
    assert (around.shallow_layers, around.windows, around.prune_layers) == ((5, 2, 10), (8,), ((16,), (8,), (20,)))


def test_every_control_is_there_at_every_budget() -> None:
    kinds = {"random at layer 4", "drop all at layer 4", "stage 1 only", "random patches", "average pooling"}
    assert {each.kind for each in POINTS if each.is_control} >= kinds
    for kind in kinds:
        assert len([each for each in POINTS if each.kind == kind]) == len(DEFAULT_BUDGETS)


def test_controls_have_the_average_that_they_are_compared_at() -> None:
    controls = [each for each in POINTS if each.is_control]
    assert len(controls) == 27
    pooled = [planned_average(each) for each in controls if each.method is ReductionMethod.POOL]
    assert pooled == [25.0, 16.0, 4.0]  # squares: the largest that are not more
    others = [planned_average(each) for each in controls if each.method is not ReductionMethod.POOL]
    for average in (32.0, 16.0, 8.0):
        assert len([each for each in others if each == pytest.approx(average, rel=0.07)]) == 8


def test_what_changes_nothing_is_one_point() -> None:
    blind = replace(VALUES, local_shares=(0.0,), raters=(Rater.NONE,), budgets=("33%",))
    points = [each for each in build_points(blind, KNOWN) if each.method is ReductionMethod.VSCAN and each.budget == "33%"]
    assert len(points) == 1 + 3  # the scans' settings and the pruning layer are not read; random is at each of three layers
    assert {each.deployment.encoder for each in points} == {(2, 6)}


def test_a_split_of_the_budget_leaves_the_average_as_it_is() -> None:
    # The paper's ablation (its split of 11.1 %): 11.1 % and all, 14.8 % and a half, 16.7 % and a third.
    paper = Known(layers=32, deep_layer=22, tokens_per_tile=576, shallow_layer=5, window=6, prune_layers=(16,))
    values = filled(Wanted(budgets=("avg:11.12%",), keeps=(1.0, 0.5, 1 / 3), shallow_layers=(5,), prune_layers=((16,),)), paper)
    candidates = [each for each in build_points(values, paper) if each.kind == CANDIDATE and each.deployment.window == 6]
    firsts = [each.parsed_budget.tokens(576) for each in candidates if each.parsed_budget is not None]
    assert [(first, each.keep) for first, each in zip(firsts, candidates, strict=True)] == [(64, 1.0), (85, 0.5), (96, 1 / 3)]
    assert candidates[1].prune(0).budgets == (KeepRatio(0.5),)

    embedded = replace(VALUES, keeps=(0.5, 0.2), budgets=("avg:11.12%",), prune_layers=((4,), (2, 5)))
    points = [each for each in build_points(embedded, KNOWN) if each.rater in (Rater.LAST_TOKEN, Rater.RANDOM)]
    assert {each.keep for each in points} == {0.5, 0.2}
    assert [planned_average(each) for each in points] == pytest.approx([16] * len(points), rel=0.07)
    assert len({each.name for each in points}) == len(points)


def test_a_split_of_what_is_no_average_leaves_stage_1_as_it_is() -> None:
    points = build_points(replace(VALUES, keeps=(0.5,), budgets=("33%",), prune_layers=((4,),)), KNOWN)
    assert {each.budget for each in points if each.kind == CANDIDATE} == {"33%"}
    (stage_1,) = [each for each in points if each.kind == "stage 1 only"]
    assert planned_average(stage_1) == pytest.approx(0.33 * 144 * 0.75, rel=0.05)
    assert stage_1.keep is None


def test_a_split_that_cannot_have_the_average_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"--keep: 0.1 at 4 leaves no avg:60%: stage 1 would keep 109.1% of the tokens"):
        build_points(replace(VALUES, keeps=(0.1,), budgets=("avg:60%",), prune_layers=((4,),)), KNOWN)


def test_raters_that_do_not_look_are_controls_however_they_come() -> None:
    points = build_points(replace(VALUES, raters=(Rater.RANDOM, Rater.DROP_ALL, Rater.TEXT_MEAN)), KNOWN)
    assert {each.rater for each in points if each.kind == CANDIDATE} == {Rater.TEXT_MEAN}


@pytest.mark.parametrize(
    ("budget", "layers", "share"),
    [
        ("avg:11.1%", (4,), 0.111),
        ("24", (4,), 24 / 144 * (1 + 1 / 3) / 2),
        ("50%", (), 0.5),
        ("50%", (2, 4), 0.5 * (2 + 2 / 3 + 4 / 9) / 8),
    ],
)
def test_the_average_of_a_budget(budget: str, layers: tuple[int, ...], share: float) -> None:
    assert average_share(budget, layers, KNOWN) == pytest.approx(share)


def test_a_budget_that_no_setting_has_is_refused() -> None:
    assert check_budget("avg:5%") == "avg:5%"
    with pytest.raises(InvalidArgument, match="total:64"):
        check_budget("total:64")


@pytest.mark.parametrize(("encoders", "decoders"), [(1, 1), (6, 3), (4, 1), (1, 5)])
def test_a_whole_grid_needs_one_restart_a_deployment(encoders: int, decoders: int) -> None:
    places = [at(shallow, 6, layer) for layer, shallow in product(range(1, decoders + 1), range(encoders))]
    order = in_order([point(deployment=place) for place in places], places[0])
    assert restarts(order, places[0]) == encoders * decoders - 1
    decoder_moves = sum(a.deployment.prune_layers != b.deployment.prune_layers for a, b in pairwise(order))
    assert decoder_moves == decoders - 1


def test_points_of_one_deployment_stay_together_in_their_order() -> None:
    here, there = HERE, at(1, 6, 4)
    points = [point("8", deployment=here), point("8", deployment=there), point("9", deployment=here)]
    assert in_order(points, there) == [points[1], points[0], points[2]]
    assert restarts(in_order(points, there), there) == 1


def test_what_is_left_of_a_grid_begins_at_what_runs() -> None:
    left = [point(deployment=at(*place)) for place in [(4, 3, 2), (1, 6, 4), (4, 3, 4)]]
    order = [each.deployment for each in in_order(left, HERE)]
    assert order == [at(1, 6, 4), at(4, 3, 4), at(4, 3, 2)]
    assert restarts([point(deployment=place) for place in order], HERE) == 3


def test_no_point_needs_no_restart() -> None:
    assert in_order([], HERE) == []
    assert restarts([], HERE) == 0


def test_a_point_is_read_as_it_was_written() -> None:
    assert [Point.from_json(each.to_json()) for each in POINTS] == POINTS


def test_a_random_point_draws_anew_for_each_question() -> None:
    random = next(each for each in POINTS if each.kind == "random at layer 4")
    assert random.prune(1) != random.prune(2)
    assert Deployment(shallow_layer=1, window=1, prune_layers=()).pruned_at == "none"
