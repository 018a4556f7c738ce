"""The sizes of the model, as Hugging Face configurations."""

from __future__ import annotations

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from embedded_model.scenes import GRID, PATCH_PX, SIDE_PX
from embedded_model.tokenizer import BOS, EOS, IMAGE, MAX_TOKENS, PAD, VOCABULARY

HIDDEN = 128
LAYERS = 8
HEADS = 4
VISION_MLP = 384
TEXT_MLP = 320
FEATURE_LAYER = -2  # of hidden_states: the output of layer index 6 feeds the projector
FEATURE_DEPTH = LAYERS - 1  # layers that run before the features are read
SHALLOW_LAYER = 2  # index of the encoder layer whose [CLS] row serves a local scan
VISUAL_TOKENS = GRID * GRID
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.25, 0.25, 0.25)


def vision_config() -> CLIPVisionConfig:
    """CLIP ViT, 8 layers of 128, 12 x 12 patches and [CLS]."""
    return CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=VISION_MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        projection_dim=HIDDEN,
    )


def text_config() -> LlamaConfig:
    """Llama, 8 layers of 128, word embeddings tied to the head."""
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        intermediate_size=TEXT_MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.04,
        tie_word_embeddings=True,
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        pad_token_id=VOCABULARY[PAD],
    )


def llava_config() -> LlavaConfig:
    """The whole model: [CLS] dropped, features of layer -2, two-layer projector."""
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(),
        image_token_index=VOCABULARY[IMAGE],
        image_seq_length=VISUAL_TOKENS,
        projector_hidden_act="gelu",
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
