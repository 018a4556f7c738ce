"""The figures of every row; as JSON values, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from embedded_model.evaluate.asking import Outcome
from embedded_model.evaluate.rows import BUDGETS, LEAST_BUDGET, MAIN_CONTROLS
from embedded_model.questions import FAMILIES
from studies.kept.evaluation import ALL_TOKENS, VSCAN
from studies.statistics import Bootstrap, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row's figures. Scores are shares of right answers; every family has as many questions."""

    name: str
    method: str
    budget: str
    prune_layer: int
    after_stage_1: int
    after_stage_2: int  # past the last pruning layer
    average_tokens: float  # visual tokens over the layers
    score: Estimate
    families: dict[str, Estimate]
    retained: Estimate  # score over that of all tokens
    against: str
    difference: Estimate | None  # score less that of the row `against`, VScan at the same average
    right: str  # for each picture its families, 1 where right: "1110111 1111111 …"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Reads `asdict`."""
        estimates = {name: Estimate(**values[name]) for name in ("score", "retained")}
        families = {family: Estimate(**estimate) for family, estimate in values["families"].items()}
        difference = Estimate(**values["difference"]) if values["difference"] else None
        return cls(**{**values, **estimates, "families": families, "difference": difference})


def build_lines(outcomes: Sequence[Outcome], seed: int) -> list[Line]:
    """The figures of all rows; one of them must be ALL_TOKENS."""
    bootstrap = Bootstrap(len(outcomes[0].right), seed)
    by_name = {outcome.row.name: outcome.right.mean(axis=1) for outcome in outcomes}
    return [_line(outcome, by_name, bootstrap) for outcome in outcomes]


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [asdict(line) for line in lines]


def to_markdown(lines: Sequence[Line], constant: Mapping[str, float]) -> str:
    """One table; per cent throughout, differences in points, intervals of 95 % in brackets.

    Args:
        constant: for each family the share that its best constant answer gets right.
    """
    head = ["", "budget", "stage 1", "stage 2", "average", "all", "retained", *FAMILIES, "less VScan"]
    floor = sum(constant.values()) / len(constant)
    blind = ["no picture: the best constant answer", "", "0", "0", "0", _percent(floor), ""]
    blind += [*(_percent(constant[family]) for family in FAMILIES), ""]
    figures = [_figures(line) for line in lines]
    return "\n".join(_cells(cells) for cells in [head, ["---"] * len(head), *figures, blind])


def main_lines(lines: Sequence[Line]) -> list[Line]:
    """The few rows that tell most."""
    names = {ALL_TOKENS, *(f"{VSCAN} {budget}" for budget in BUDGETS)}
    controls = {line.name for line in lines if line.budget == LEAST_BUDGET and line.method in MAIN_CONTROLS}
    return [line for line in lines if line.name in names | controls]


def _line(outcome: Outcome, by_name: dict[str, np.ndarray], bootstrap: Bootstrap) -> Line:
    row, right = outcome.row, outcome.right
    mine, other = by_name[row.name], by_name.get(row.against)
    return Line(
        name=row.name,
        method=row.method,
        budget=row.budget,
        prune_layer=row.prune_layer,
        after_stage_1=outcome.tokens.after_stage_1,
        after_stage_2=outcome.tokens.after_stage_2,
        average_tokens=outcome.tokens.average,
        score=bootstrap.mean(mine),
        families={family: bootstrap.mean(right[:, i].astype(float)) for i, family in enumerate(FAMILIES)},
        retained=bootstrap.ratio(mine, by_name[ALL_TOKENS]),
        against=row.against,
        difference=None if other is None else bootstrap.mean(mine - other),
        right=" ".join("".join(map(str, line)) for line in right.astype(int).tolist()),
    )


def _figures(line: Line) -> list[str]:
    return [
        line.method,
        line.budget,
        str(line.after_stage_1),
        str(line.after_stage_2),
        f"{line.average_tokens:g}",
        _with_interval(line.score),
        _with_interval(line.retained),
        *(_percent(line.families[family].value) for family in FAMILIES),
        _with_interval(line.difference, "+") if line.difference else "",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _with_interval(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (100 * part + 0.0 for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
