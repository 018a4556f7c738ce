"""Visual-token dropout: keep a part of the tokens, in order, positions packed.

Which tokens stay is random, except that one token at least of every object stays: the questions
keep their answers. The last stage also favours the objects' tokens by an amount drawn for each
picture, for the share of ground among the kept tokens changes the counts that attention makes.
No attention score takes part, so no pruning method is favoured.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embedded_model.config import VISUAL_TOKENS
from embedded_model.scenes import MAX_THINGS

LEAST_SHARE = 0.11


def draw_count(rng: np.random.Generator, full_share: float) -> int:
    """How many visual tokens a batch keeps: all with probability `full_share`, else 11 to 100 %."""
    if rng.random() < full_share:
        return VISUAL_TOKENS
    return int(VISUAL_TOKENS * rng.uniform(LEAST_SHARE, 1.0))


def draw_kept(owner: Tensor, count: int, favour: float = 0.0) -> Tensor:
    """Kept token indices [pictures, count], ascending, for `owner` [pictures, 144] (-1: ground).

    A token's chance is uniform in 0..1; objects get up to `favour` more, drawn for each picture.
    """
    order = torch.rand(owner.shape, device=owner.device)
    if favour:
        order = order + favour * torch.rand(len(owner), 1, device=owner.device) * (owner >= 0)
    objects = torch.arange(MAX_THINGS, device=owner.device)
    mine = owner[:, None, :] == objects[None, :, None]  # [pictures, objects, 144]
    best = torch.where(mine, order[:, None, :], -1.0)
    spared = torch.zeros_like(order)
    spared.scatter_add_(1, best.argmax(-1), mine.any(-1).float())
    return (order + (2 + favour) * spared).topk(count, dim=1).indices.sort(dim=1).values


def keep(tokens: Tensor, kept: Tensor) -> Tensor:
    """`tokens` [pictures, 144, hidden] at `kept` [pictures, count]."""
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
