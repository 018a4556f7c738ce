"""A LLaVA checkpoint whose vision transformer attends in a way that is known beforehand.

Its patches are told apart by their places alone, and no layer changes anything: patch i of 16 is the unit vector i, [CLS] is 0.

    layer 0     all rows look at all rows alike
    layer 1     all rows look at one patch: `LOGIT` to it, and what the norm makes of that to the others
    layer 2     each patch looks at itself only
    layer 3     is not served, as the features are those of the layer before
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

SIDE = 4
PATCHES = SIDE * SIDE
PLANTED = (1, 2)  # row and column
LOGIT = 4.0
_HIDDEN, _HEADS, _PATCH_PIXELS = 32, 2, 14
# Of a patch's vector after a norm: its own component; that of the others is minus its inverse.
_OWN = math.sqrt(_HIDDEN - 1)
_SURE = 40.0  # a logit that leaves nothing for others


def planted_shares() -> tuple[float, float]:
    """What [CLS] gives to the planted patch in layer 1, and to each other one; the rest it keeps."""
    planted, other = math.exp(LOGIT), math.exp(-LOGIT / _OWN**2)
    whole = planted + (PATCHES - 1) * other + 1
    return planted / whole, other / whole


def write_planted(directory: Path) -> Path:
    """Writes the checkpoint: vision half, projector and image processor, and a language half that nobody trained."""
    size: dict[str, Any] = {"hidden_size": _HIDDEN, "intermediate_size": _HIDDEN, "num_hidden_layers": 4}
    side = SIDE * _PATCH_PIXELS
    vision = CLIPVisionConfig(**size, num_attention_heads=_HEADS, image_size=side, patch_size=_PATCH_PIXELS)
    text = {"model_type": "llama", **size, "num_attention_heads": _HEADS, "vocab_size": 64}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=63)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        _plant(model.model.vision_tower)
    model.save_pretrained(directory)
    square = {"height": side, "width": side}
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square).save_pretrained(directory)
    return directory


def _plant(tower: Any) -> None:
    for parameter in tower.parameters():
        parameter.zero_()
    for module in tower.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(1)
    places = tower.embeddings.position_embedding.weight  # [CLS] first
    places[1 : 1 + PATCHES, :PATCHES] = 1000 * torch.eye(PATCHES)
    head_dim = _HIDDEN // _HEADS
    one, each = (tower.encoder.layers[layer].self_attn for layer in (1, 2))
    one.q_proj.bias.fill_(1)
    row, column = PLANTED
    one.k_proj.weight[:, SIDE * row + column] = LOGIT / (_OWN * one.scale * head_dim)
    alike = math.sqrt(_SURE / each.scale) / _OWN
    for head in range(_HEADS):
        for projection in (each.q_proj, each.k_proj):
            projection.weight[head * head_dim : (head + 1) * head_dim, :PATCHES] = alike * torch.eye(PATCHES)
