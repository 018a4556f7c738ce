"""A LLaVA of random weights that answers like the embedded model, but whose work outweighs what surrounds it. Needs torch.

What a request costs depends on shapes alone. The embedded model is so small that a step of its language model takes as long as
the Python around it; services of real size spend their time in the model, and so do these.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from embedded_model import checkpoint_dir
from embedded_model.config import FEATURE_LAYER, llava_config, text_config, vision_config

_AS_THEY_ARE = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
_HIDDEN, _HEADS, _LAYERS, _TEXT_MLP = 384, 6, 8, 1024
_VISION_LAYERS = 6
SMALL_SIDE_PIXELS = 96
# 24 x 24 patches: the 576 visual tokens of LLaVA-1.5.
FULL_SIDE_PIXELS = 192


def write_random_llava(
    folder: Path, seed: int = 0, *, side_pixels: int = SMALL_SIDE_PIXELS, positions: int | None = None
) -> Path:
    """Writes it into `folder`: CLIP of 6 layers, Llama of 8, both of 384; the embedded model's words.

    Args:
        side_pixels: of the images that its vision transformer sees, in patches of 8: 96 gives 144 visual tokens, 192 gives 576.
        positions: rows of the longest prompt with its answer. Unset: the embedded model's.
    """
    torch.manual_seed(seed)
    vision = vision_config().to_dict() | {"hidden_size": _HIDDEN, "intermediate_size": 4 * _HIDDEN, "image_size": side_pixels}
    vision |= {"num_hidden_layers": _VISION_LAYERS, "num_attention_heads": _HEADS, "projection_dim": _HIDDEN}
    text = text_config().to_dict() | {"hidden_size": _HIDDEN, "intermediate_size": _TEXT_MLP, "head_dim": _HIDDEN // _HEADS}
    text |= {"num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS, "num_key_value_heads": _HEADS}
    if positions is not None:
        text |= {"max_position_embeddings": positions}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig.from_dict(vision),
        text_config=LlamaConfig.from_dict(text),
        image_token_index=llava_config().image_token_index,
        image_seq_length=(side_pixels // vision["patch_size"]) ** 2,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    for name in _AS_THEY_ARE:
        shutil.copyfile(checkpoint_dir() / name, folder / name)
    _write_processors(folder, side_pixels)
    return folder


def _write_processors(folder: Path, side_pixels: int) -> None:
    """The embedded model's, for images of another size."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        described = json.loads((checkpoint_dir() / name).read_text())
        images = described.get("image_processor", described)
        images["crop_size"] = {"height": side_pixels, "width": side_pixels}
        images["size"] = {"shortest_edge": side_pixels}
        (folder / name).write_text(json.dumps(described, indent=2) + "\n")
