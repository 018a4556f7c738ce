"""The model of transformers, and the three parts of its forward pass that training runs apart."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from embedded_model.config import FEATURE_DEPTH, llava_config
from embedded_model.packing import PREFIX_IDS, Pack, pack_mask, pack_positions


def build_model() -> LlavaForConditionalGeneration:
    """A model with fresh weights. The encoder's attention is eager: on a CPU the backward pass of
    the fused kernel takes four times as long at 145 tokens, and the weights can be looked at."""
    config = llava_config()
    config.vision_config._attn_implementation = "eager"
    config.text_config._attn_implementation = "sdpa"
    return LlavaForConditionalGeneration(config)


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


def answer_logits(model: LlavaForConditionalGeneration, visual: Tensor, pack: Pack) -> Tensor:
    """Logits [pictures, tokens, vocabulary] at every token of `pack`, behind `visual` [pictures, kept, 128]."""
    embed = model.get_input_embeddings()
    lead = torch.tensor(PREFIX_IDS, device=visual.device).expand(len(visual), -1)
    whole = torch.cat([embed(lead), visual.to(embed.weight.dtype), embed(pack.ids)], dim=1)
    prefix = lead.shape[1] + visual.shape[1]
    fast = torch.is_autocast_enabled(visual.device.type)
    mask_dtype = torch.get_autocast_dtype(visual.device.type) if fast else whole.dtype
    hidden = model.model.language_model(
        inputs_embeds=whole,
        attention_mask=pack_mask(pack.segments, prefix, mask_dtype),
        position_ids=pack_positions(pack.offsets, prefix),
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden[:, prefix:])
    return logits
