"""The model of transformers, and the three parts of its forward pass that training runs apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from embedded_model.config import FEATURE_DEPTH, llava_config
from embedded_model.packing import PREFIX_IDS, Pack, pack_mask, pack_positions


def build_model() -> LlavaForConditionalGeneration:
    """A model with fresh weights. Attention is eager: on a CPU the backward pass of the fused
    kernel takes several times as long at these lengths, and the weights can be looked at."""
    config = llava_config()
    config.vision_config._attn_implementation = "eager"
    config.text_config._attn_implementation = "eager"
    return LlavaForConditionalGeneration(config)


def compile_layers(model: LlavaForConditionalGeneration) -> None:
    """Compiles the layers of both transformers in place; needs a C++ compiler on a CPU."""
    for layer in (*model.model.vision_tower.encoder.layers, *model.model.language_model.layers):
        layer.compile(dynamic=True)


def encoder_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> list[Tensor]:
    """Hidden states [pictures, 145, 128] before layer 0 and after layers 0..6.

    The last one is what the projector reads; layer 7 is never run.
    """
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    states = [hidden]
    for layer in tower.encoder.layers[:FEATURE_DEPTH]:
        hidden = layer(hidden, attention_mask=None)
        states.append(hidden)
    return states


def visual_tokens(model: LlavaForConditionalGeneration, features: Tensor) -> Tensor:
    """Projected patch features [pictures, 144, 128] of encoder output [pictures, 145, 128]."""
    tokens: Tensor = model.model.multi_modal_projector(features[:, 1:])
    return tokens


@dataclass(frozen=True, slots=True)
class Cut:
    """Visual tokens that go on past a layer of the language model."""

    layer: int  # 0-based: this one and the later ones see the kept tokens alone
    kept: Tensor  # [pictures, survivors] int64, ascending: indices of the visual tokens


def answer_logits(model: LlavaForConditionalGeneration, visual: Tensor, pack: Pack, cut: Cut | None = None) -> Tensor:
    """Logits [pictures, tokens, vocabulary] at every token of `pack`, behind `visual` [pictures, kept, 128].

    With `cut`, positions from its layer on are those of the shorter sequence.
    """
    embed = model.get_input_embeddings()
    lead = torch.tensor(PREFIX_IDS, device=visual.device).expand(len(visual), -1)
    whole = torch.cat([embed(lead), visual.to(embed.weight.dtype), embed(pack.ids)], dim=1)
    layers = model.model.language_model.layers
    deep = len(layers) if cut is None else cut.layer
    hidden = _through(model, layers[:deep], whole, pack)
    if cut is not None:
        hidden = _through(model, layers[deep:], _cut(hidden, len(PREFIX_IDS), visual.shape[1], cut.kept), pack)
    said = model.model.language_model.norm(hidden[:, -pack.ids.shape[1] :])
    logits: Tensor = model.lm_head(said)
    return logits


def _through(model: LlavaForConditionalGeneration, layers: Iterable[nn.Module], hidden: Tensor, pack: Pack) -> Tensor:
    """`hidden` [pictures, prefix + tokens, 128] after `layers`."""
    prefix = hidden.shape[1] - pack.ids.shape[1]
    fast = torch.is_autocast_enabled(hidden.device.type)
    mask_dtype = torch.get_autocast_dtype(hidden.device.type) if fast else hidden.dtype
    mask = pack_mask(pack.segments, prefix, mask_dtype)
    positions = pack_positions(pack.offsets, prefix)
    turns = model.model.language_model.rotary_emb(hidden, positions)
    for layer in layers:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=turns)
    return hidden


def _cut(hidden: Tensor, lead: int, visual: int, kept: Tensor) -> Tensor:
    """`hidden` without the visual tokens that are not `kept`; they lie behind `lead` tokens."""
    seen = hidden[:, lead : lead + visual]
    survivors = seen.gather(1, kept[..., None].expand(-1, -1, hidden.shape[-1]))
    return torch.cat([hidden[:, :lead], survivors, hidden[:, lead + visual :]], dim=1)
