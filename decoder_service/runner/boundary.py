"""Ranking before a pruning layer: which visual tokens of a prompt go on, judged by the rows that wait in the boundary store."""

from __future__ import annotations

import torch

from decoder_service.budgets import tokens_to_keep
from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.language.base import LanguageModel
from decoder_service.pruning import attention_scores, choose_survivors, random_scores
from decoder_service.request import LayerPruning
from decoder_service.runner.batch import Part
from decoder_service.runner.faults import not_finite
from decoder_service.runner.sequence import DeviceSequence
from vscan.specs import Rater
from vscan.transfer import to_device


def rank_prompt(part: Part, segment: Segment, model: LanguageModel, storage: KvStorage) -> LayerPruning | None:
    """Decides what the prompt keeps from `segment` on, once the segment before holds all of it; None if nothing is to do.

    Raises:
        InternalError: the scores are no numbers, so that they rank nothing.
    """
    device, before = part.device, segment.index - 1
    whole = part.piece.ranges[before][1] >= part.piece.sequence.prompt_rows[before]
    if not whole or not device.must_rank(segment.index):
        return None
    survivors = _survivors(part, segment, model, storage)
    return device.rank(segment.index, segment.first_layer, survivors, model)


def _survivors(part: Part, segment: Segment, model: LanguageModel, storage: KvStorage) -> torch.Tensor:
    """Places among the prompt's visual tokens, ascending, [kept]."""
    device, layer = part.device, segment.first_layer
    pruning, tokens = device.request.pruning, device.prompt.tokens
    if pruning.rater is Rater.DROP_ALL or not tokens.numel():
        return tokens.new_empty(0)
    budget = pruning.budgets[pruning.layers.index(layer)]
    image_of = device.prompt.image_of[tokens]
    keep = tokens_to_keep(budget, visual_tokens=tokens.shape[0], images=len(set(image_of.tolist())))
    if pruning.rater is Rater.RANDOM:
        scores = random_scores(tokens.shape[0], seed=pruning.seed, layer=layer)
    else:
        rows = part.piece.sequence.prompt_rows[segment.index - 1]
        table = part.piece.sequence.tables[segment.index - 1]
        hidden = storage.read_boundary(storage.boundary(table.block_rows_of(range(rows))))
        scores = _attention(device, segment, hidden, model)
        if not scores.isfinite().all():
            raise not_finite("scores of the prompt's visual tokens")
    return choose_survivors(scores, image_of, keep)


def _attention(device: DeviceSequence, segment: Segment, rows: torch.Tensor, model: LanguageModel) -> torch.Tensor:
    """Scores of the prompt's visual tokens that are still there, at the positions before this pruning, [v] on the CPU."""
    last = torch.tensor([rows.shape[0] - 1])
    mean_of_text = device.request.pruning.rater is Rater.TEXT_MEAN
    asking = device.prompt.asking_rows if mean_of_text else last
    places = device.positions[segment.index - 1].places
    return score_visual(model, segment.first_layer, rows, places, asking=asking, visual=device.prompt.visual_rows)


def score_visual(
    model: LanguageModel, layer: int, rows: torch.Tensor, places: torch.Tensor, *, asking: torch.Tensor, visual: torch.Tensor
) -> torch.Tensor:
    """How much attention `layer`'s own projections of a prompt's rows give each visual one.

    Args:
        rows: the layer's input, [rows, hidden], on the device.
        places: of these rows, as `Positions` has them, on the CPU.
        asking: which rows ask, [m], int64 on the CPU.
        visual: which rows are visual, [v], int64 on the CPU.

    Returns:
        [v], on the CPU; see `attention_scores`.
    """
    asked = to_device(asking, model.device)
    rope = model.rope(rows[None], to_device(places, model.device))
    queries, keys, scaling = model.score_projections(layer, rows, asked, rope)
    visual_rows = to_device(visual, model.device)
    return attention_scores(queries, keys, query_rows=asked, visual_rows=visual_rows, scaling=scaling).cpu()
