"""Which points are on the Pareto front, and which one is chosen.

The rule: of the points that are not worse than the most accurate one by more than the tolerance, the one with the fewest visual
tokens. "Not worse" has to be shown, not merely not refuted: the whole 95 % interval of the paired difference must lie above
minus the tolerance. With few questions intervals are wide, and the choice is then a dear point, not one that is cheap by luck.

Controls are there to be compared with. One is chosen only where the front has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studies.statistics import Estimate
from studies.tune.figures import Figures

_ROUNDING = 1e-9  # in accuracies; a thousandth of a question in a million


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A point beside the most accurate one."""

    figures: Figures
    loss: Estimate  # its accuracy less the best one's
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen, and what a reader must know to believe it."""

    chosen: Verdict
    best: Figures
    front: tuple[Figures, ...]  # ascending in tokens
    undecided: tuple[Verdict, ...]  # cheaper, within the tolerance by their mean, but not by their interval
    controls_as_good: tuple[Figures, ...]  # that have no more tokens than what was chosen, and are right as often
    only_controls: bool  # whether the front has nothing else


Difference = Callable[[Figures, Figures], Estimate]


def pareto_front(figures: Sequence[Figures]) -> list[Figures]:
    """Those that no other one equals or beats in both accuracy and tokens, ascending in both; of equals a candidate."""
    front: list[Figures] = []
    for each in sorted(figures, key=lambda one: (one.tokens, -one.accuracy.value, one.point.is_control)):
        if not front or each.accuracy.value > front[-1].accuracy.value + _ROUNDING:
            front.append(each)
    return front


def choose(figures: Sequence[Figures], difference: Difference, tolerance: float) -> Choice:
    """Applies the rule.

    Args:
        figures: at least one.
        difference: the accuracy of the first less that of the second, with its interval.
        tolerance: a share of the questions.
    """
    front = pareto_front(figures)
    only_controls = all(each.point.is_control for each in front)
    pool = [each for each in figures if only_controls or not each.point.is_control]
    # Of equals the dearest: that a cheaper one is as good is what has to be shown.
    best = min(pool, key=lambda each: (-each.accuracy.value, -each.tokens))
    verdicts = [_verdict(each, best, difference, tolerance) for each in pool]
    chosen = min((verdict for verdict in verdicts if verdict.allowed), key=_cheapest_first)
    return Choice(
        chosen=chosen,
        best=best,
        front=tuple(front),
        undecided=tuple(
            verdict
            for verdict in sorted(verdicts, key=_cheapest_first)
            if not verdict.allowed and verdict.loss.value >= -tolerance and verdict.figures.tokens < chosen.figures.tokens
        ),
        controls_as_good=tuple(
            each
            for each in figures
            if each.point.is_control
            and each is not chosen.figures
            and each.tokens <= chosen.figures.tokens * (1 + _ROUNDING)
            and each.accuracy.value >= chosen.figures.accuracy.value - _ROUNDING
        ),
        only_controls=only_controls,
    )


def _verdict(each: Figures, best: Figures, difference: Difference, tolerance: float) -> Verdict:
    loss = difference(each, best)
    return Verdict(figures=each, loss=loss, allowed=each is best or loss.low >= -tolerance - _ROUNDING)


def _cheapest_first(verdict: Verdict) -> tuple[float, float, float]:
    """Fewest tokens, then the more accurate, then the fewer operations."""
    each = verdict.figures
    return (each.tokens, -each.accuracy.value, each.measured.cost.prefill_flops)
