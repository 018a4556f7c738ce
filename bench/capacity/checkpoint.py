"""A LLaVA of random weights that answers like the embedded model, but whose work outweighs what surrounds it.

What a request costs depends on shapes alone. The embedded model is so small that a step of its language model takes as long as
the Python around it; services of real size spend their time in the model, and so do these.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from embedded_model.config import FEATURE_LAYER, VISUAL_TOKENS, llava_config, text_config, vision_config

EMBEDDED = Path(__file__).parents[2] / "embedded_model" / "checkpoint"
_AS_THEY_ARE = (
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_HIDDEN, _HEADS, _LAYERS, _TEXT_MLP = 384, 6, 8, 1024
_VISION_LAYERS = 6


def write_random_llava(folder: Path, seed: int = 0) -> Path:
    """Writes it into `folder`: 144 visual tokens of 384, CLIP of 6 layers, Llama of 8; the embedded model's words."""
    torch.manual_seed(seed)
    vision = vision_config().to_dict() | {"hidden_size": _HIDDEN, "intermediate_size": 4 * _HIDDEN}
    vision |= {"num_hidden_layers": _VISION_LAYERS, "num_attention_heads": _HEADS, "projection_dim": _HIDDEN}
    text = text_config().to_dict() | {"hidden_size": _HIDDEN, "intermediate_size": _TEXT_MLP, "head_dim": _HIDDEN // _HEADS}
    text |= {"num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS, "num_key_value_heads": _HEADS}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig.from_dict(vision),
        text_config=LlamaConfig.from_dict(text),
        image_token_index=llava_config().image_token_index,
        image_seq_length=VISUAL_TOKENS,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    for name in _AS_THEY_ARE:
        shutil.copyfile(EMBEDDED / name, folder / name)
    return folder
