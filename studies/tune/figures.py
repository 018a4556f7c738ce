"""The figures of all points, and the CSV that has them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.statistics import Bootstrap, Estimate
from studies.tune.asking import Measured
from studies.tune.point import NO_REDUCTION, Point
from studies.tune.questions import Question

CSV_NAME = "points.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One point's. Accuracies are shares of the questions; 95 % intervals, by bootstrap over pictures."""

    measured: Measured
    accuracy: Estimate
    difference: Estimate  # less that of no reduction, question by question

    @property
    def point(self) -> Point:
        """Whose they are."""
        return self.measured.point

    @property
    def tokens(self) -> float:
        """Visual tokens on average over the layers."""
        return self.measured.cost.visual_average


class Comparison:
    """Compares points over the same questions: pictures are drawn again whole, the same ones for both sides.

    A mean over questions is a ratio of two sums over pictures, since pictures may have different numbers of questions.
    """

    def __init__(self, questions: Sequence[Question], seed: int = 0) -> None:
        names = [question.picture for question in questions]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self._picture_of = np.array([numbers[name] for name in names])
        self._asked = np.bincount(self._picture_of).astype(float)
        self._bootstrap = Bootstrap(len(numbers), seed)

    def accuracy(self, measured: Measured) -> Estimate:
        """The share of questions that it got right."""
        return self._bootstrap.ratio(self._rights(measured), self._asked)

    def difference(self, measured: Measured, other: Measured) -> Estimate:
        """Its accuracy less the other one's.

        The interval reaches as far as the rule of three at least: what happened to none of n questions may yet happen to 3 of
        n (for 95 %), while a bootstrap of answers that never differ has no width.
        """
        found = self._bootstrap.ratio(self._rights(measured) - self._rights(other), self._asked)
        if measured is other:
            return found
        unseen = 3 / len(self._picture_of)
        return Estimate(
            found.value, max(-1.0, min(found.low, found.value - unseen)), min(1.0, max(found.high, found.value + unseen))
        )

    def _rights(self, measured: Measured) -> np.ndarray:
        return np.bincount(self._picture_of, weights=np.array(measured.right, dtype=float))


def build_figures(measured: Sequence[Measured], comparison: Comparison) -> list[Figures]:
    """Of all points, one of which is no reduction."""
    whole = next(each for each in measured if each.point.kind == NO_REDUCTION)
    return [
        Figures(measured=each, accuracy=comparison.accuracy(each), difference=comparison.difference(each, whole))
        for each in measured
    ]


def write_csv(figures: Sequence[Figures], front: Sequence[Figures], chosen: Figures, path: Path) -> None:
    """One line a point, units in the names of the columns."""
    rows = [_row(each, on_front=each in front, chosen=each is chosen) for each in figures]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(each: Figures, *, on_front: bool, chosen: bool) -> dict[str, object]:
    told, cost = each.point.to_json(), each.measured.cost
    told["prune_layers"] = each.point.deployment.pruned_at
    return {
        "point": each.point.name,
        **told,
        "control": int(each.point.is_control),
        "on_front": int(on_front),
        "chosen": int(chosen),
        "questions": len(each.measured.right),
        **_percent("accuracy", each.accuracy),
        **_percent("accuracy_less_no_reduction", each.difference),
        "visual_tokens_after_stage_1": _short(cost.visual_stage_1),
        "visual_tokens_after_last_pruning": _short(cost.visual_last),
        "visual_tokens_average_over_layers": _short(cost.visual_average),
        "kv_rows_average_over_layers": _short(cost.kv_rows_average),
        "prefill_gflops_of_visual_tokens": _short(cost.prefill_flops / 1e9),
        "prefill_time_over_no_reduction": _short(each.measured.prefill_ratio),
    }


def _percent(name: str, estimate: Estimate) -> dict[str, object]:
    parts = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{name}{part}_percent": f"{100 * value + 0.0:.2f}" for part, value in parts.items()}


def _short(value: float) -> str:
    return f"{value:.6g}"
