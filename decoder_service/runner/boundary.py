"""What happens before a pruning layer: the prompts that are being run lose visual tokens, everything else passes on."""

from __future__ import annotations

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.language.base import LanguageModel
from decoder_service.pruning import attention_scores, choose_survivors, random_scores, tokens_to_keep
from decoder_service.request import LayerPruning
from decoder_service.runner.batch import Batch, Slot
from decoder_service.runner.sequence import PromptRows
from vscan.specs import PositionPolicy, Rater


def cross_boundary(batch: Batch, segment: Segment, model: LanguageModel) -> bool:
    """Prunes before `segment` and takes the batch over to it. True if a prompt was pruned."""
    kept = [_pruned(batch, slot, segment.first_layer, model) for slot in batch.slots]
    batch.keep(kept, segment)
    return any(rows is not None for rows in kept)


def _pruned(batch: Batch, slot: Slot, layer: int, model: LanguageModel) -> torch.Tensor | None:
    """The rows of the slot that stay, or None if this layer prunes nothing of it."""
    if slot.prompt is None or layer not in slot.sequence.request.pruning.layers:
        return None
    before = slot.prompt.tokens.shape[0]
    rows = slot.prompt.drop_visual_but(_survivors(batch, slot, slot.prompt, layer, model))
    slot.sequence.pruning.append(LayerPruning(layer, before, slot.prompt.survivors()))
    if slot.sequence.request.pruning.positions is PositionPolicy.RENUMBER:
        slot.positions = model.text_positions(0, rows.shape[0])
    else:
        slot.positions = slot.positions.only(rows)
    return rows


def _survivors(batch: Batch, slot: Slot, prompt: PromptRows, layer: int, model: LanguageModel) -> torch.Tensor:
    """Places among the prompt's visual tokens, ascending, [kept]."""
    pruning = slot.sequence.request.pruning
    tokens = prompt.tokens
    if pruning.rater is Rater.DROP_ALL or not tokens.numel():
        return tokens.new_empty(0)
    budget = pruning.budgets[pruning.layers.index(layer)]
    image_of = prompt.image_of[tokens]
    keep = tokens_to_keep(budget, visual_tokens=tokens.shape[0], images=len(set(image_of.tolist())))
    if pruning.rater is Rater.RANDOM:
        scores = random_scores(tokens.shape[0], seed=pruning.seed, layer=layer)
    else:
        scores = _attention(batch, slot, prompt, layer, model)
    return choose_survivors(scores, image_of, keep)


def _attention(batch: Batch, slot: Slot, prompt: PromptRows, layer: int, model: LanguageModel) -> torch.Tensor:
    """Scores by the layer's own projections, at the positions before this pruning, [v] on the CPU."""
    last = torch.tensor([slot.rows - 1])
    mean_of_text = slot.sequence.request.pruning.rater is Rater.TEXT_MEAN
    asking = (prompt.asking_rows if mean_of_text else last).to(model.device)
    rows = batch.hidden[0, slot.start : slot.end]
    queries, keys, scaling = model.score_projections(layer, rows, asking, batch.slot_rope(slot))
    visual = prompt.visual_rows.to(model.device)
    return attention_scores(queries, keys, query_rows=asking, visual_rows=visual, scaling=scaling).cpu()
