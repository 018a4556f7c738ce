"""What pruning before a layer would keep of a prompt, each layer judged by itself: nothing was pruned before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from decoder_service.budgets import tokens_to_keep
from decoder_service.language.base import LanguageModel
from decoder_service.pruning import choose_survivors
from decoder_service.request import Prompt
from decoder_service.runner.boundary import score_visual
from decoder_service.runner.sequence import PromptRows
from studies.language.walk import walk
from vscan.specs import PruneBudget, Rater

# Raters that read the model; the others are controls.
RATERS = (Rater.LAST_TOKEN, Rater.TEXT_MEAN)


@dataclass(frozen=True, slots=True, eq=False)
class Retained:
    """The visual tokens of a prompt, [kept], int64, ascending, that `rater` would keep before `layer`."""

    layer: int
    rater: Rater
    tokens: torch.Tensor


@torch.inference_mode()
def retained(
    model: LanguageModel, prompt: Prompt, layers: Sequence[int], budget: PruneBudget, raters: Sequence[Rater] = RATERS
) -> Iterator[Retained]:
    """Scores and choice are the decoder's own (VScan, arXiv 2505.22654, section 3.2).

    Args:
        layers: ascending; pruning before layer 0 is never served, as its scores have read nothing but the embeddings.
        budget: for all images of the prompt together, each of which keeps a token.
        raters: of `RATERS`.
    """
    asked, rows = set(layers), PromptRows(prompt)
    places = model.prompt_positions(prompt).places
    keep = tokens_to_keep(budget, visual_tokens=prompt.visual_rows, images=len(prompt.images))
    asking = {Rater.LAST_TOKEN: torch.tensor([prompt.rows - 1]), Rater.TEXT_MEAN: rows.asking_rows}
    for view in walk(model, prompt):
        for rater in raters if view.layer in asked else ():
            scores = score_visual(model, view.layer, view.entering, places, asking=asking[rater], visual=rows.visual_rows)
            yield Retained(view.layer, rater, choose_survivors(scores, rows.image_of, keep))
        if view.layer == max(asked):
            return
