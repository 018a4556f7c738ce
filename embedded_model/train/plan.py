"""How long each stage is. The defaults made the packaged checkpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Steps of one stage, and the size of a step on each rank."""

    steps: int
    pictures: int
    questions: int = 16  # a picture
    full_share: float = 1.0  # of batches that keep all visual tokens
    favour_few: bool = False  # draw small numbers of kept tokens as often as large ones
    favour: float = 0.0  # most that dropout adds to the chance of an item's tokens
    cut_share: float = 0.0  # of batches that lose two thirds of their visual tokens halfway
    vision_rate: float = 1.0  # factor on the encoder's learning rates
    rate: float = 1.0  # factor on all other learning rates


PLANS: dict[str, StagePlan] = {
    "vision": StagePlan(steps=2600, pictures=32),
    "language": StagePlan(steps=2600, pictures=16, full_share=0.25),
    "bridge": StagePlan(steps=500, pictures=32),
    "joint": StagePlan(steps=2200, pictures=16, full_share=0.5, cut_share=0.25, vision_rate=0.2, rate=0.7),
    "dropout": StagePlan(
        steps=900, pictures=16, full_share=0.2, favour_few=True, favour=1.0, cut_share=0.5, vision_rate=0.1, rate=0.3
    ),
}


def scaled(count: int, scale: float) -> int:
    """`count` steps or pictures in a run of `scale` times the length; one at least."""
    return max(1, round(count * scale))
