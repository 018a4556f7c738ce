"""Options of the language model's studies, read from text as `vscan ask` reads them. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vscan.errors import InvalidArgument
from vscan.specs import Budget, PruneBudget, ReductionMethod
from vscan_client.cli.questions import parse_budget, parse_keep

V = TypeVar("V")


def reduction(text: str) -> ReductionMethod:
    """A method of stage 1. Raises ValueError."""
    if text not in list(ReductionMethod):
        raise ValueError(f"one of {', '.join(ReductionMethod)} is needed")
    return ReductionMethod(text)


def budget(text: str) -> Budget:
    """What stage 1 keeps: `96`, `33%`, `avg:11.1%` or `total:256`. Raises ValueError."""
    return _read(parse_budget, text)


def keep(text: str) -> PruneBudget:
    """What a pruning layer keeps of a prompt's visual tokens: `32` or `33%`. Raises ValueError."""
    budgets = _read(parse_keep, text)
    if len(budgets) != 1:
        raise ValueError("one budget is needed: each layer is judged by itself")
    return budgets[0]


def _read(parse: Callable[[str], V], text: str) -> V:
    try:
        return parse(text)
    except InvalidArgument as error:
        raise ValueError(error.problem + (f", limit {error.limit}" if error.limit else "")) from error
