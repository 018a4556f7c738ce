"""How many rows of a prompt reach each segment: known before anything is ranked. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from decoder_service.kv_cache.segments import Segment
from decoder_service.request import EngineRequest
from vscan.specs import KeepTokens, PruneBudget, Rater, floor_tokens


def tokens_to_keep(budget: PruneBudget, *, visual_tokens: int, images: int) -> int:
    """How many of `visual_tokens` survive: what the budget says, at least one for each image, at most all."""
    asked = budget.count if isinstance(budget, KeepTokens) else floor_tokens(budget.fraction * visual_tokens)
    return min(visual_tokens, max(images, asked))


def segment_rows(request: EngineRequest, segments: Sequence[Segment]) -> tuple[int, ...]:
    """Rows of the prompt in each segment.

    30 rows of text and 480 visual tokens, of which 160 are kept: 510 190
    """
    prompt, pruning = request.prompt, request.pruning
    images = sum(span.count > 0 for span in prompt.spans)
    visual, rows = prompt.visual_rows, []
    for segment in segments:
        if segment.first_layer in pruning.layers and visual:
            dropped = pruning.rater is Rater.DROP_ALL
            budget = None if dropped else pruning.budgets[pruning.layers.index(segment.first_layer)]
            visual = 0 if budget is None else tokens_to_keep(budget, visual_tokens=visual, images=images)
        rows.append(prompt.rows - prompt.visual_rows + visual)
    return tuple(rows)


def first_pruned_segment(request: EngineRequest, segments: Sequence[Segment]) -> int:
    """The first segment behind one of the request's pruning layers; the number of segments if there is none."""
    return next((segment.index for segment in segments if segment.first_layer in request.pruning.layers), len(segments))
