"""Visual-token dropout: keep a part of the tokens, in order, positions packed.

Which tokens stay is random, except that one token at least of every item (object or letter) stays:
the questions keep their answers. The last stage also favours the items' tokens by an amount drawn
for each picture, for the share of ground among the kept tokens changes the counts that attention
makes. Some batches lose two thirds of what is left halfway through the language model, chosen
alike. No attention score takes part in the choice. But a model trained so has met the schedule of
VScan's default (two stages, the second at half the layers, positions packed, nothing that answers
questions lost), and neither pruning at another layer nor merging, pooling or kept positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embedded_model.config import LAYERS, VISUAL_TOKENS
from embedded_model.model import Cut
from embedded_model.scenes import MAX_ITEMS

LEAST_SHARE = 0.11
CUT_LAYER = LAYERS // 2
CUT_KEEPS = 3  # one visual token in so many goes on past CUT_LAYER


def draw_count(rng: np.random.Generator, full_share: float, favour_few: bool = False) -> int:
    """How many visual tokens a batch keeps: all with probability `full_share`, else 11 to 100 %.

    These are drawn evenly, or evenly in their logarithm with `favour_few`.
    """
    if rng.random() < full_share:
        return VISUAL_TOKENS
    even = rng.uniform()
    share = LEAST_SHARE ** (1 - even) if favour_few else LEAST_SHARE + (1 - LEAST_SHARE) * even
    return int(VISUAL_TOKENS * share)


def draw_kept(owner: Tensor, count: int, favour: float = 0.0) -> Tensor:
    """Kept token indices [pictures, count], ascending, for `owner` [pictures, tokens] (-1: ground).

    A token's chance is uniform in 0..1; items get up to `favour` more, drawn for each picture.
    """
    order = torch.rand(owner.shape, device=owner.device)
    if favour:
        order = order + favour * torch.rand(len(owner), 1, device=owner.device) * (owner >= 0)
    items = torch.arange(MAX_ITEMS, device=owner.device)
    mine = owner[:, None, :] == items[None, :, None]  # [pictures, items, tokens]
    best = torch.where(mine, order[:, None, :], -1.0)
    spared = torch.zeros_like(order)
    spared.scatter_add_(1, best.argmax(-1), mine.any(-1).float())
    return (order + (2 + favour) * spared).topk(count, dim=1).indices.sort(dim=1).values


def draw_cut(owner: Tensor, kept: Tensor, favour: float = 0.0) -> Cut:
    """A third of the `kept` tokens [pictures, count], one of every item at least, goes on past CUT_LAYER."""
    count = max(MAX_ITEMS, kept.shape[1] // CUT_KEEPS)
    return Cut(CUT_LAYER, draw_kept(owner.gather(1, kept), count, favour))


def keep(tokens: Tensor, kept: Tensor) -> Tensor:
    """`tokens` [pictures, 144, hidden] at `kept` [pictures, count]."""
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
