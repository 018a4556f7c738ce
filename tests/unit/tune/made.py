"""Hand-made points and results."""

from __future__ import annotations

from dataclasses import replace

from studies.statistics import Estimate
from studies.tune.asking import Measured
from studies.tune.cost import Cost
from studies.tune.figures import Figures
from studies.tune.point import CANDIDATE, Deployment, Point
from vscan.specs import Rater, ReductionMethod

HERE = Deployment(shallow_layer=2, window=6, prune_layers=(4,))


def point(
    budget: str = "avg:11.12%",
    *,
    kind: str = CANDIDATE,
    deployment: Deployment = HERE,
    method: ReductionMethod = ReductionMethod.VSCAN,
    rater: Rater = Rater.LAST_TOKEN,
    local_share: float = 0.5,
) -> Point:
    return Point(
        kind=kind, deployment=deployment, method=method, budget=budget, local_share=local_share, merge=True, rater=rater
    )


def at(shallow_layer: int, window: int, prune_layer: int) -> Deployment:
    return Deployment(shallow_layer=shallow_layer, window=window, prune_layers=(prune_layer,))


def measured(of: Point, right: str, tokens: float = 16.0) -> Measured:
    """`right`: for each question 1 or 0."""
    cost = Cost(visual_stage_1=tokens, visual_last=tokens, visual_average=tokens, kv_rows_average=tokens, prefill_flops=tokens)
    return Measured(point=of, right=tuple(mark == "1" for mark in right), cost=cost, prefill_ratios=(0.5,))


def figures(tokens: float, accuracy: float, *, kind: str = CANDIDATE, flops: float | None = None) -> Figures:
    """A point whose budget is its tokens, so that no two are equal."""
    made = measured(point(f"{tokens:g}", kind=kind), "1", tokens)
    if flops is not None:
        made = replace(made, cost=replace(made.cost, prefill_flops=flops))
    exactly = Estimate(accuracy, accuracy, accuracy)
    return Figures(measured=made, accuracy=exactly, difference=exactly)
