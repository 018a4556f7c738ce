"""How the last prompt row shares out its attention, layer by layer: visual tokens, the text before them, the other text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from decoder_service.language.base import LanguageModel
from decoder_service.request import Prompt
from studies.language.walk import walk


@dataclass(frozen=True, slots=True)
class Shares:
    """Of one layer and one prompt, mean over heads; the first three sum to 1.

    rows    s s v v v q v v q q      system: text before the first visual token; question: all other text, the last row too
    """

    layer: int
    visual: float
    system: float
    question: float
    first: float  # to the prompt's first row, which is also counted where it belongs


def shares(model: LanguageModel, prompt: Prompt) -> Iterator[Shares]:
    """Every layer's, with the attention that the model itself has: rotary embeddings applied, whatever its ranking does."""
    masks = masks_of(prompt)
    for view in walk(model, prompt):
        given = view.attention.double()
        total = float(given.sum())  # 1 but for rounding
        parts = {name: float(given[rows].sum()) / total for name, rows in masks.items()}
        yield Shares(view.layer, **parts, first=float(given[0]) / total)


def masks_of(prompt: Prompt) -> dict[str, torch.Tensor]:
    """Which rows are `visual`, `system` and `question`, each [rows], bool."""
    visual = torch.zeros(prompt.rows, dtype=torch.bool)
    for span in prompt.spans:
        visual[span.start : span.start + span.count] = True
    before = visual.cumsum(dim=0) == 0
    return {"visual": visual, "system": before, "question": ~visual & ~before}
