"""Questions by family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Q = TypeVar("Q")
ALL = "all"
UNNAMED = "no family"


def with_all(questions: Sequence[Q], family_of: Callable[[Q], str]) -> Iterator[tuple[str, list[Q]]]:
    """All questions, then each family's in the order in which they first come, where there are several."""
    families: dict[str, list[Q]] = {}
    for question in questions:
        families.setdefault(family_of(question) or UNNAMED, []).append(question)
    yield ALL, list(questions)
    if len(families) > 1:
        yield from families.items()
