"""What a run says at its end, and what its settings file says of itself."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from studies.statistics import Estimate
from studies.tune.choice import Choice, Verdict
from studies.tune.figures import Figures

_MOST_UNDECIDED = 3


def report(figures: Sequence[Figures], choice: Choice, *, tolerance: float) -> list[str]:
    """Lines: the front, what was chosen and why, and what speaks against it."""
    return [
        "Pareto front, fewest tokens first:",
        *map(_front_line, choice.front),
        "",
        *_why(choice, tolerance),
        *_doubts(figures, choice, tolerance),
    ]


def comments(figures: Figures, choice: Choice, *, model: str, data: str, command: str, tolerance: float) -> list[str]:
    """The head of a settings file."""
    cost = figures.measured.cost
    served = "" if model == "the embedded model" else f" --model {shlex.quote(model)}"
    return [
        f"Written by: {command}",
        f"Start with: vscan up{served} --settings FILE   (or: vscan serve encoder --settings FILE, and the decoder likewise)",
        "",
        f"Model: {model}",
        f"Questions: {len(figures.measured.right)}, {data}",
        f"Point: {figures.point.name}",
        f"Accuracy: {_spoken(figures.accuracy)} %, with its 95 % interval",
        f"Accuracy less that of no reduction: {_spoken(figures.difference, '+')} points",
        f"Visual tokens: {cost.visual_stage_1:.5g} after stage 1, {cost.visual_last:.5g} past the last pruning layer, "
        f"{cost.visual_average:.5g} on average over the layers",
        f"KV rows: {cost.kv_rows_average:.5g} on average over the layers",
        f"Prefill: {cost.prefill_flops / 1e9:.4g} GFLOPs of visual tokens by formula",
        f"Prefill time: {figures.measured.prefill_ratio:.2f} of that of no reduction, measured in turn",
        f"Chosen: fewest visual tokens of the points that are not more than {100 * tolerance:g} points worse than the best"
        + (" (the front has controls only)" if choice.only_controls else ""),
    ]


def _why(choice: Choice, tolerance: float) -> list[str]:
    chosen, best = choice.chosen.figures, choice.best
    lines = [f"chosen: {_described(chosen)}"]
    if chosen is best:
        lines.append("  It is the most accurate one, and of no cheaper one it is shown that it loses less than the tolerance.")
    else:
        lines.append(f"  The most accurate one is {_described(best)}.")
        lines.append(
            f"  Against it the chosen one has {_spoken(choice.chosen.loss, '+')} points: the whole 95 % interval lies above "
            f"-{100 * tolerance:g}, and no point that can say so has fewer tokens."
        )
    return lines


def _doubts(figures: Sequence[Figures], choice: Choice, tolerance: float) -> list[str]:
    if not choice.best.accuracy.value:
        return ["  note: no point answered a single question as expected: compare `vscan ask` with the answers in the file."]
    return [*_controls(choice), *_undecided(choice.undecided, tolerance), *_few_questions(figures, tolerance)]


def _controls(choice: Choice) -> list[str]:
    if choice.only_controls:
        return [
            "  note: the front has nothing but controls, so one was chosen: on these questions VScan gains nothing over it."
        ]
    if not choice.controls_as_good:
        return []
    names = ", ".join(dict.fromkeys(each.point.kind for each in choice.controls_as_good))
    return [f"  note: with no more tokens these controls are right as often: {names}. These questions do not tell them apart."]


def _undecided(verdicts: Sequence[Verdict], tolerance: float) -> list[str]:
    if not verdicts:
        return []
    shown = [f"    {_described(verdict.figures)}; loss {_spoken(verdict.loss, '+')}" for verdict in verdicts[:_MOST_UNDECIDED]]
    more = len(verdicts) - len(shown)
    head = f"  note: cheaper, within {100 * tolerance:g} points, but not surely so; more questions would tell:"
    return [head, *shown, *([f"    and {more} more"] if more else [])]


def _few_questions(figures: Sequence[Figures], tolerance: float) -> list[str]:
    """What never happened in n questions may still happen in 3 of n (the rule of three, for 95 %)."""
    count = len(figures[0].measured.right)
    if tolerance > 0 and count >= 3 / tolerance:
        return []
    need = f"at least {3 / tolerance:.0f} are needed" if tolerance > 0 else "no number of questions shows a loss of 0"
    return [f"  note: {count} questions cannot show that nothing beyond {100 * tolerance:g} points is lost; {need}."]


def _front_line(each: Figures) -> str:
    control = "  (control)" if each.point.is_control else ""
    return f"  {_described(each)}{control}"


def _described(each: Figures) -> str:
    ratio = each.measured.prefill_ratio
    return f"{each.point.name}: {_spoken(each.accuracy)} %, {each.tokens:.4g} visual tokens, prefill x {ratio:.2f}"


def _spoken(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (100 * part + 0.0 for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
