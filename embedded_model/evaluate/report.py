"""The table, as JSON values and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedded_model.evaluate.asking import Outcome
from embedded_model.evaluate.rows import ALL_TOKENS, Row
from embedded_model.evaluate.statistics import Bootstrap, Estimate
from embedded_model.questions import FAMILIES


@dataclass(frozen=True, slots=True)
class Line:
    """One row's figures. Scores are shares of right answers, every family weighing the same."""

    row: Row
    after_stage_1: int
    after_stage_2: int
    average: float  # visual tokens over the layers
    score: Estimate
    families: dict[str, Estimate]
    retained: Estimate  # score over that of all tokens
    difference: Estimate | None  # score less that of `row.against`
    right: tuple[str, ...]  # for each picture its families, 1 where right


def build_lines(outcomes: Sequence[Outcome], seed: int) -> list[Line]:
    """The figures of all rows."""
    bootstrap = Bootstrap(len(outcomes[0].right), seed)
    by_name = {outcome.row.name: outcome.right.mean(axis=1) for outcome in outcomes}
    return [_line(outcome, by_name, bootstrap) for outcome in outcomes]


def _line(outcome: Outcome, by_name: dict[str, np.ndarray], bootstrap: Bootstrap) -> Line:
    row, right = outcome.row, outcome.right
    mine = by_name[row.name]
    other = by_name.get(row.against)
    return Line(
        row=row,
        after_stage_1=outcome.tokens.after_stage_1,
        after_stage_2=outcome.tokens.after_stage_2,
        average=outcome.tokens.average,
        score=bootstrap.mean(mine),
        families={family: bootstrap.mean(right[:, i].astype(float)) for i, family in enumerate(FAMILIES)},
        retained=bootstrap.ratio(mine, by_name[ALL_TOKENS]),
        difference=None if other is None else bootstrap.mean(mine - other),
        right=tuple("".join(map(str, line)) for line in right.astype(int).tolist()),
    )


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [
        {
            "name": line.row.name,
            "method": line.row.method,
            "budget": line.row.budget,
            "prune_layer": line.row.prune_layer,
            "tokens": {"stage_1": line.after_stage_1, "stage_2": line.after_stage_2, "average": line.average},
            "score": asdict(line.score),
            "families": {family: asdict(estimate) for family, estimate in line.families.items()},
            "retained": asdict(line.retained),
            "against": line.row.against if line.difference else None,
            "difference": asdict(line.difference) if line.difference else None,
            "right": line.right,
        }
        for line in lines
    ]


def to_markdown(lines: Sequence[Line]) -> str:
    """One table; per cent throughout, differences in points, intervals of 95 % in brackets."""
    head = ["method", "average", "stage 1", "stage 2", "tokens on average", "all", "retained", *FAMILIES, "less VScan"]
    text = [_cells(head), _cells(["---"] * len(head))]
    for line in lines:
        cells = [
            line.row.method,
            line.row.budget,
            str(line.after_stage_1),
            str(line.after_stage_2),
            f"{line.average:g}",
            _with_interval(line.score),
            f"{100 * line.retained.value:.1f}",
            *(f"{100 * line.families[family].value:.1f}" for family in FAMILIES),
            _with_interval(line.difference, "+") if line.difference and line.row.against.startswith("VScan") else "",
        ]
        text.append(_cells(cells))
    return "\n".join(text)


def _with_interval(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
