"""The language half of the LLaVA families: a Llama, or another plain causal model.

Every row has one position, an image or a video is one run of rows.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM

from decoder_service.language.base import LanguageModel, refuse_unpackable_rope, shape_of
from decoder_service.language.tokens import read_special_tokens
from decoder_service.runner.attention import register_attention
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError

# The kinds of text model that were made into LLaVA checkpoints and that the runner's loop fits.
_TEXT_MODELS: dict[str, Any] = {"llama": LlamaForCausalLM, "mistral": MistralForCausalLM, "qwen2": Qwen2ForCausalLM}
# Both styles: `language_model.model.layers…` of the hub, `model.language_model.layers…` of newer files.
_KEY_MAPPING = {
    r"^(model\.)?language_model\.lm_head": "lm_head",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}


def load_causal(
    family: str, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str, videos: bool = False
) -> LanguageModel:
    """Loads the language half alone.

    Args:
        videos: whether the family takes videos, and so its configuration names their placeholder.

    Raises:
        CheckpointError: it is missing, or of a kind that is not served.
    """
    text_config = _text_config(checkpoint)
    model = checkpoint.load_half(
        _TEXT_MODELS[text_config.model_type],
        text_config,
        key_mapping=_KEY_MAPPING,
        dtype=dtype,
        device=device,
        attention=register_attention(),
    )
    tokens = read_special_tokens(
        checkpoint,
        placeholder_id=int(checkpoint.config.image_token_id),
        video_placeholder_id=int(checkpoint.config.video_token_id) if videos else None,
    )
    return LanguageModel(model, family=family, shape=shape_of(text_config), tokens=tokens)


def _text_config(checkpoint: Checkpoint) -> Any:
    config = copy.deepcopy(checkpoint.config.get_text_config())
    if config.model_type not in _TEXT_MODELS:
        served = ", ".join(sorted(_TEXT_MODELS))
        raise CheckpointError(f"{checkpoint.directory}: text model {config.model_type} is not served, only {served}")
    refuse_unpackable_rope(checkpoint, config)
    # Composite files state it at either level; the half alone would read only its own.
    config.tie_word_embeddings = bool(config.tie_word_embeddings or checkpoint.config.tie_word_embeddings)
    return config
