"""Small language models and requests for them: the parity checkpoint, and random ones that need no files."""

from __future__ import annotations

import hashlib
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from decoder_service.language.base import LanguageModel, shape_of
from decoder_service.language.registry import load_language
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import EngineRequest, ImageSpan, Prompt, Pruning, Sampling
from decoder_service.runner.attention import register_attention
from vscan.checkpoint import Checkpoint
from vscan.visual_tokens import Tile, VisualTokens

PARITY = Path(__file__).parents[1] / "data" / "parity"
PLACEHOLDER = 255
PARITY_PATCHES = 576
_names = itertools.count()


@cache
def parity_language() -> LanguageModel:
    """The language half of the parity checkpoint, float32 on the CPU; shared, since it is never changed."""
    return load_language(Checkpoint.open(PARITY / "llava15"), dtype=torch.float32, device="cpu")


@cache
def parity_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(PARITY / "llava15" / "tokenizer.json"))


def random_language(
    *, layers: int = 6, kv_heads: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0, **config: Any
) -> LanguageModel:
    """A Llama with wide random weights, so that attention is peaked and choices are well apart."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4} | config
    llama = LlamaConfig(num_hidden_layers=layers, num_key_value_heads=kv_heads, max_position_embeddings=512, **sizes)
    llama._attn_implementation = register_attention()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if parameter.dim() == 1 else 0.3)
    tokens = SpecialTokens(63, frozenset({2}), frozenset({2, 63}), frozenset())
    model = model.to(dtype).eval().requires_grad_(False)
    return LanguageModel(model, family="test", shape=shape_of(llama), tokens=tokens)


def visual_tokens(rows: torch.Tensor, *, unreduced: int | None = None, kept: torch.Tensor | None = None) -> VisualTokens:
    """`rows` [T, hidden] as a value; of one tile of one row."""
    count = rows.shape[0]
    total = unreduced or count
    return VisualTokens(
        tokens=rows,
        kept_indices=torch.arange(count) if kept is None else kept,
        picked_by=torch.zeros(count, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(1, total, count),),
        unreduced_count=total,
    )


def random_image(count: int, *, hidden: int, seed: int, dtype: torch.dtype = torch.float32) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    return visual_tokens(torch.randn((count, hidden), generator=generator, dtype=torch.float64).to(dtype))


def lay_out(pieces: list[list[int] | VisualTokens], *, placeholder: int = 63) -> Prompt:
    """A prompt of token ids and images, in order."""
    ids: list[int] = []
    spans: list[ImageSpan] = []
    images: list[VisualTokens] = []
    for piece in pieces:
        if isinstance(piece, VisualTokens):
            spans.append(ImageSpan(len(images), len(ids), piece.kept_count))
            images.append(piece)
            ids += [placeholder] * piece.kept_count
        else:
            ids += piece
    return Prompt(tuple(ids), tuple(spans), tuple(images), tuple(map(image_key, images)))


def image_key(image: VisualTokens) -> bytes:
    """Another one for other tokens or other places."""
    parts = (image.tokens.float().numpy().tobytes(), image.kept_indices.numpy().tobytes(), repr(image.tiles).encode())
    return hashlib.sha256(b"|".join(parts)).digest()


def ask(
    prompt: Prompt,
    *,
    max_new_tokens: int = 8,
    pruning: Pruning | None = None,
    name: str | None = None,
    trace_context: dict[str, str] | None = None,
    tenant: str = "default",
    **sampling: Any,
) -> EngineRequest:
    """A request; greedy, and end-of-sequence ignored, unless told."""
    return EngineRequest(
        request_id=name or f"r{next(_names)}",
        prompt=prompt,
        sampling=Sampling(max_new_tokens=max_new_tokens, **({"ignore_eos": True} | sampling)),
        pruning=pruning or Pruning(),
        tenant=tenant,
        trace_context=trace_context or {},
    )


def word_decoder(ids: Any) -> str:
    """The text of random models: `w7 w12`."""
    return " ".join(f"w{token}" for token in ids)
