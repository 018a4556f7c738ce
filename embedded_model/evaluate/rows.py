"""The rows of the table: VScan at three budgets, and the controls at the same average number of visual tokens.

With stage 2 at half the layers, T tokens after stage 1 and R after stage 2 are (T + R) / 2 on average; the paper's choice is
T = 1.5 x and R = 0.5 x the average. A control that does without a stage gives its tokens to the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedded_model.config import LAYERS, VISUAL_TOKENS
from studies.kept.evaluation import ALL_TOKENS, VSCAN
from vscan.specs import (
    KeepTokens,
    PositionPolicy,
    PruneSpec,
    Rater,
    ReductionMethod,
    ReductionSpec,
    TargetAverage,
    TokensPerTile,
)

BUDGETS = {"33%": 1 / 3, "22%": 2 / 9, "11%": 1 / 9}
HALFWAY = LAYERS // 2
EARLY = 1  # the layer of a control that prunes inside the language model alone
POOLED = VISUAL_TOKENS // 4  # 2 x 2 pooling
RANDOM = "random patches"
LEAST_BUDGET = "11%"
# Those of which the short table has a line.
MAIN_CONTROLS = frozenset(
    {
        "stage 1 only",
        "global scan only",
        "local scan only",
        RANDOM,
        f"{RANDOM}, merged, stage 2",
        f"random at layer {HALFWAY}",
        f"drop all at layer {HALFWAY}",
        "3×3 pooling",
    }
)

_NO_STAGE_1 = ReductionSpec(method=ReductionMethod.NONE)
_NO_STAGE_2 = PruneSpec(rater=Rater.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of answering the exam."""

    method: str
    budget: str  # key of BUDGETS, or another share of the visual tokens
    reduction: ReductionSpec
    prune: PruneSpec
    against: str = ""  # VScan at the same average, by name
    prune_layer: int = HALFWAY  # of the deployment
    half_resolution: bool = False

    @property
    def name(self) -> str:
        """Unique in a table."""
        return f"{self.method} {self.budget}".strip()


def vscan_row(budget: str, share: float) -> Row:
    """Both stages as the paper has them, `share` of the visual tokens on average."""
    return Row(method=VSCAN, budget=budget, reduction=ReductionSpec(budget=TargetAverage(share)), prune=PruneSpec())


def build_rows() -> list[Row]:
    """Every row, in the order of the table."""
    rows = [Row(method=ALL_TOKENS, budget="", reduction=_NO_STAGE_1, prune=_NO_STAGE_2)]
    for budget, share in BUDGETS.items():
        rows += [vscan_row(budget, share), *_controls(budget, share)]
    rows += [vscan_row("25%", 1 / 4), *_pooling_rows(), *_half_resolution_rows()]
    return rows


def _controls(budget: str, share: float) -> list[Row]:
    average = round(VISUAL_TOKENS * share)
    both = TargetAverage(share)

    def row(method: str, reduction: ReductionSpec, prune: PruneSpec, prune_layer: int = HALFWAY) -> Row:
        against = f"{VSCAN} {budget}"
        return Row(method=method, budget=budget, reduction=reduction, prune=prune, against=against, prune_layer=prune_layer)

    def first(method: ReductionMethod = ReductionMethod.VSCAN, *, merge: bool = True) -> ReductionSpec:
        return ReductionSpec(method=method, budget=both, merge=merge, seed=0)

    def alone(method: ReductionMethod, count: int, *, merge: bool = True) -> ReductionSpec:
        return ReductionSpec(method=method, budget=TokensPerTile(count), merge=merge, seed=0)

    survivors = average // 2
    rows = [
        row("stage 1 only", alone(ReductionMethod.VSCAN, average), _NO_STAGE_2),
        _stage_2_alone(survivors),
        row("global scan only", first(ReductionMethod.GLOBAL), PruneSpec()),
        row("local scan only", first(ReductionMethod.LOCAL), PruneSpec()),
        row("no merging", first(merge=False), PruneSpec()),
        row(RANDOM, alone(ReductionMethod.RANDOM, average, merge=False), _NO_STAGE_2),
        row(f"{RANDOM}, stage 2", first(ReductionMethod.RANDOM, merge=False), PruneSpec()),
        row(f"{RANDOM}, merged, stage 2", first(ReductionMethod.RANDOM), PruneSpec()),
        row("random at layer 4", first(), PruneSpec(rater=Rater.RANDOM, seed=0)),
        row("drop all at layer 4", alone(ReductionMethod.VSCAN, 2 * average), PruneSpec(rater=Rater.DROP_ALL)),
        row("text-mean rater", first(), PruneSpec(rater=Rater.TEXT_MEAN)),
        row("positions kept", first(), PruneSpec(positions=PositionPolicy.KEEP)),
    ]
    left = (average * LAYERS - VISUAL_TOKENS * EARLY) // (LAYERS - EARLY)
    if left > 0:
        early = PruneSpec(budgets=(KeepTokens(left),))
        rows.insert(2, row(f"stage 2 only, layer {EARLY}", _NO_STAGE_1, early, prune_layer=EARLY))
    return rows


def _stage_2_alone(survivors: int) -> Row:
    """At half the layers its average cannot go below half of all: it is shown at VScan's last count instead."""
    share = (VISUAL_TOKENS + survivors) / (2 * VISUAL_TOKENS)
    prune = PruneSpec(budgets=(KeepTokens(survivors),))
    return Row(method=f"stage 2 only, layer {HALFWAY}", budget=f"{share:.0%}", reduction=_NO_STAGE_1, prune=prune)


def _pooling_rows() -> list[Row]:
    def pooled(method: str, count: int, budget: str, half_resolution: bool = False) -> Row:
        reduction = ReductionSpec(method=ReductionMethod.POOL, budget=TokensPerTile(count))
        return Row(
            method=method,
            budget=budget,
            reduction=reduction,
            prune=_NO_STAGE_2,
            against=f"{VSCAN} {budget}",
            half_resolution=half_resolution,
        )

    return [
        pooled("2×2 pooling", POOLED, "25%"),
        pooled("half resolution, 2×2 pooling", POOLED, "25%", half_resolution=True),
        pooled("3×3 pooling", VISUAL_TOKENS // 9, "11%"),
    ]


def _half_resolution_rows() -> list[Row]:
    """The encoder reads 96 px only: a coarser picture alone saves no tokens, so it is shown with all of them too."""
    method = "half resolution, all tokens"
    row = Row(method=method, budget="", reduction=_NO_STAGE_1, prune=_NO_STAGE_2, half_resolution=True)
    return [row]
