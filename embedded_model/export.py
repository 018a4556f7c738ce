"""Writes the Hugging Face checkpoint directory from a trained model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from embedded_model.config import PIXEL_MEAN, PIXEL_STD
from embedded_model.scenes import PATCH_PX, SIDE_PX
from embedded_model.tokenizer import BOS, EOS, IMAGE, PAD, VOCABULARY, build_tokenizer

MAX_NEW_TOKENS = 16
BICUBIC = 3  # PIL's number

# As llava-hf's template, with a space where that has a line break after the image.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image> ' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_processor() -> LlavaProcessor:
    """The processor: CLIP's image processor at 96 px, the word-level tokenizer, the chat template."""
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": SIDE_PX},
        crop_size={"height": SIDE_PX, "width": SIDE_PX},
        resample=BICUBIC,
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def export_checkpoint(model: LlavaForConditionalGeneration, directory: Path) -> None:
    """Writes config, float16 weights, tokenizer, processor and generation defaults."""
    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        pad_token_id=VOCABULARY[PAD],
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    model.to(torch.float16).save_pretrained(directory)
    _publish_names(directory / "model.safetensors")
    processor = build_processor()
    processor.save_pretrained(directory)
    processor.image_processor.save_pretrained(directory)  # preprocessor_config.json


def _publish_names(weights: Path) -> None:
    """Names the encoder's tensors as the published LLaVA checkpoints do (`vision_tower.vision_model.…`)."""
    tensors = load_file(weights)
    renamed = {
        re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
