"""What several benchmarks' rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from studies.evaluation.task import Item, Score
from vscan_client.cli.question_file import Id

R = TypeVar("R")


def accuracy(right: Iterable[float]) -> float:
    """The mean in percent; 0 of nothing."""
    points = list(right)
    return 100 * sum(points) / len(points) if points else 0.0


def by_category(items: Sequence[Item[R]], points: Mapping[Id, float], category: Callable[[R], str]) -> dict[str, Score]:
    """Accuracy of each category's questions, in the order of the names; a question whose category is empty is in none."""
    found: dict[str, list[float]] = {}
    for item in items:
        name = category(item.label)
        if name:
            found.setdefault(name, []).append(points[item.id])
    return {name: Score(accuracy(found[name]), len(found[name])) for name in sorted(found)}


def distinct(names: Sequence[str]) -> list[str]:
    """Names that all differ: the second `a` becomes `a#2`, for files that name a question after its image."""
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return told
