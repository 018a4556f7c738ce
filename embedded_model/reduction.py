"""Reduced visual tokens for measuring the model alone: stage 1 of VScan, and a random choice.

A plain restatement of the method's first stage (local scan, global scan, merge after the
projector) for pictures of one tile, so that training can tell how the model bears it without any
other package. Serving has its own, faster implementation.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from embedded_model.config import FEATURE_DEPTH, SHALLOW_LAYER
from embedded_model.model import encoder_states, visual_tokens
from embedded_model.scenes import GRID

WINDOW = 6  # patches per side: four windows of the 12 x 12 grid


class Reduction(Enum):
    """How the visual tokens to keep are chosen."""

    VSCAN = "vscan"
    RANDOM = "random"


def reduced_tokens(model: LlavaForConditionalGeneration, pixels: Tensor, budget: int, reduction: Reduction) -> Tensor:
    """`budget` visual tokens a picture, [pictures, budget, 128], from `pixels`."""
    features, shallow, deep = scanned(model, pixels)
    tokens = visual_tokens(model, features)
    if reduction is Reduction.RANDOM:
        return _gather(tokens, torch.rand(tokens.shape[:2]).topk(budget).indices.sort().values)
    return merge(tokens, stage1_kept(shallow, deep, budget))


def scanned(model: LlavaForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features [pictures, 145, 128], and the [CLS] rows of attention at the shallow layer and at
    the feature layer, mean over heads, [pictures, 144] each. The encoder must run eager attention."""
    layers = model.model.vision_tower.encoder.layers
    rows: list[Tensor] = []
    hooks = [
        layers[index].self_attn.register_forward_hook(
            lambda _module, _inputs, output: rows.append(output[1][:, :, 0, 1:].mean(1))
        )
        for index in (SHALLOW_LAYER, FEATURE_DEPTH - 1)
    ]
    features = encoder_states(model, pixels)[-1]
    for hook in hooks:
        hook.remove()
    return features, rows[0], rows[1]


def stage1_kept(shallow: Tensor, deep: Tensor, budget: int) -> Tensor:
    """Kept patches [pictures, budget], ascending: half by window on `shallow`, the rest on `deep`."""
    windows = (GRID // WINDOW) ** 2
    per_window = budget // 2 // windows
    split = (-1, GRID // WINDOW, WINDOW, GRID // WINDOW, WINDOW)
    indices = torch.arange(GRID * GRID).view(split[1:]).permute(0, 2, 1, 3).reshape(windows, -1)
    by_window = shallow.view(split).permute(0, 1, 3, 2, 4).reshape(len(shallow), windows, -1)
    best = by_window.topk(per_window, dim=-1).indices
    local = indices.expand(len(shallow), -1, -1).gather(2, best).flatten(1)
    rest = deep.scatter(1, local, 0.0)
    far = rest.topk(budget - local.shape[1], dim=1).indices
    return torch.cat([local, far], dim=1).sort(dim=1).values


def merge(tokens: Tensor, kept: Tensor) -> Tensor:
    """Each dropped token joins its most similar kept one; a group becomes its mean."""
    normal = functional.normalize(tokens, dim=-1)
    likeness = normal @ _gather(normal, kept).transpose(1, 2)  # [pictures, 144, budget]
    target = likeness.argmax(-1)
    target.scatter_(1, kept, torch.arange(kept.shape[1]).expand_as(kept))
    groups = functional.one_hot(target, kept.shape[1]).to(tokens.dtype).transpose(1, 2)
    return groups @ tokens / groups.sum(-1, keepdim=True)


def _gather(tokens: Tensor, kept: Tensor) -> Tensor:
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
