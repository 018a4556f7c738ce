"""How findings put numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def percent(share: float) -> str:
    """`0.4321` as `43 %`; one more digit below 10."""
    return f"{100 * share:.{1 if abs(share) < 0.0995 else 0}f} %"


def counted(number: int, what: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def layers(numbers: Sequence[int]) -> str:
    """`layer 3`, `layers 1–3, 5`."""
    return f"layer{'' if len(numbers) == 1 else 's'} {ranges(numbers)}"


def ranges(numbers: Sequence[int]) -> str:
    """`1, 2, 3, 5` as `1–3, 5`; ascending."""
    breaks = [0, *(index for index, (low, high) in enumerate(pairwise(numbers), 1) if high != low + 1), len(numbers)]
    runs = [numbers[low:high] for low, high in pairwise(breaks) if low < high]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
