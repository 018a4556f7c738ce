"""A LLaVA checkpoint with random weights: what an encoder takes to encode depends on shapes alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

_PROJECTOR = "model.multi_modal_projector."
_TOWER = "model.vision_tower.vision_model."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """A vision transformer, and the width of the language model that it feeds."""

    layers: int
    hidden: int
    heads: int
    language_hidden: int
    image_side_pixels: int = 336
    patch_side_pixels: int = 14


def write_checkpoint(folder: Path, shape: ClipShape, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Writes the encoder's half into `folder`; there is no language model in it."""
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden,
            intermediate_size=4 * shape.hidden,
            num_attention_heads=shape.heads,
            image_size=shape.image_side_pixels,
            patch_size=shape.patch_side_pixels,
        ),
        text_config=LlamaConfig(
            hidden_size=shape.language_hidden, num_attention_heads=shape.language_hidden // 64, num_hidden_layers=1
        ),
    )
    tower = CLIPVisionModel(config.vision_config).state_dict()
    projector = LlavaMultiModalProjector(config).state_dict()
    tensors = {_TOWER + name.removeprefix("vision_model."): tensor for name, tensor in tower.items()}
    tensors |= {_PROJECTOR + name: tensor for name, tensor in projector.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    side = shape.image_side_pixels
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    stated = json.loads(processor.to_json_string()) | {"image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    return folder
