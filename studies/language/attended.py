"""Attention shares over many questions, by layer and by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studies.language.groups import with_all
from studies.language.shares import Shares
from studies.language.spread import Spread


@dataclass(frozen=True, slots=True)
class SharesOf:
    """One question's shares of every layer, and what it was about."""

    layers: tuple[Shares, ...]
    visual_rows: float  # the share of the prompt's rows that are visual: what even attention would give them
    family: str
    pictures: str


@dataclass(frozen=True, slots=True)
class LayerShares:
    """Of one layer over the questions of a family."""

    layer: int
    visual: Spread
    system: Spread
    question: Spread
    first: Spread


@dataclass(frozen=True, slots=True)
class FamilyShares:
    """Of the questions of a family; `ALL` is all of them."""

    family: str
    questions: int
    visual_rows: float  # mean
    layers: tuple[LayerShares, ...]


def by_family(questions: Sequence[SharesOf]) -> list[FamilyShares]:
    """All questions first, then each family's where there are several."""
    return [_family(family, some) for family, some in with_all(questions, lambda one: one.family)]


def _family(family: str, questions: Sequence[SharesOf]) -> FamilyShares:
    pictures = [one.pictures for one in questions]

    def layer(number: int) -> LayerShares:
        of_layer = [one.layers[number] for one in questions]
        parts = (
            Spread.of([getattr(one, part) for one in of_layer], pictures) for part in ("visual", "system", "question", "first")
        )
        return LayerShares(number, *parts)

    even = sum(one.visual_rows for one in questions) / len(questions)
    return FamilyShares(family, len(questions), even, tuple(map(layer, range(len(questions[0].layers)))))
