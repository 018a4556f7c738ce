"""Language models whose attention is known: every layer hands its rows on unchanged, and looks where it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from decoder_service.language.base import LanguageModel, shape_of
from decoder_service.language.tokens import SpecialTokens
from decoder_service.runner.attention import register_attention
from vscan.visual_tokens import PickedBy, Tile, VisualTokens

HIDDEN, HEADS, HEAD_DIM, VOCABULARY, PLACEHOLDER = 32, 2, 16, 40, 39
# Channels of the hidden state: 0 is the same for every row; the k-th planted token has channel 1 + k.
_CONSTANT, _FIRST_MARK = 0, 1
# The pair of a head's channels that rotary embeddings turn least: by about 1/3,000 a row.
_STILL = HEAD_DIM // 2 - 1


def planted(layers: int, looks_at: Mapping[int, int], *, strength: float = 30.0) -> LanguageModel:
    """A model whose layer k, of `looks_at`, attends to the row that bears mark `looks_at[k]`; other layers attend evenly."""
    model = _silent(layers)
    for layer, mark in looks_at.items():
        attention: Any = model.model.layers[layer].self_attn
        for head in range(HEADS):
            attention.q_proj.weight[head * HEAD_DIM + _STILL, _CONSTANT] = strength
            attention.k_proj.weight[head * HEAD_DIM + _STILL, _FIRST_MARK + mark] = 1.0
    return _wrapped(model)


def marked_picture(rows: int, columns: int, places: Mapping[int, tuple[int, int]]) -> VisualTokens:
    """A picture of rows x columns tokens, of which that at `places[mark]` bears `mark`."""
    tokens = torch.zeros(rows * columns, HIDDEN)
    tokens[:, _CONSTANT] = 1.0
    for mark, (row, column) in places.items():
        tokens[row * columns + column, _FIRST_MARK + mark] = 4.0
    count = len(tokens)
    picked_by = torch.full((count,), int(PickedBy.ALL), dtype=torch.uint8)
    return VisualTokens(tokens, torch.arange(count), picked_by, None, (Tile(rows, columns, count),), count)


def _silent(layers: int) -> LlamaForCausalLM:
    """Nothing is attended to, nothing is written; a row of text is its constant channel and one of its own."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
    )
    config._attn_implementation = register_attention()
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for layer in model.model.layers:
        for weight in layer.parameters():
            weight.fill_(1.0 if weight.dim() == 1 else 0.0)
    embeddings = model.model.embed_tokens.weight
    embeddings.zero_()
    embeddings[:, _CONSTANT] = 1.0
    return model


def _wrapped(model: LlamaForCausalLM) -> LanguageModel:
    tokens = SpecialTokens(PLACEHOLDER, frozenset({2}), frozenset({2, PLACEHOLDER}), frozenset())
    return LanguageModel(model, family="test", shape=shape_of(model.config), tokens=tokens)
