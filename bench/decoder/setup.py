"""A model of random weights in this engine and in transformers' own form, and questions for it."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM

from decoder_service.detokenize import CheckpointDecoder
from decoder_service.engine import Engine
from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.segments import PageLayout, split_layers
from decoder_service.language.base import LanguageModel, shape_of
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import EngineRequest, ImageSpan, Prompt, Pruning, Sampling
from decoder_service.runner.attention import register_attention
from decoder_service.runner.runner import Runner
from decoder_service.runner.varlen import block_rows
from decoder_service.scheduler import Scheduler
from vscan.specs import KeepTokens, Rater
from vscan.visual_tokens import Tile, VisualTokens

SYSTEM, QUESTION = 30, 30
UNREDUCED, REDUCED, KEPT = 2880, 480, 160
UNPRUNED = Pruning()
VOCABULARY = 32_000
PLACEHOLDER = VOCABULARY - 1
_CONTEXT = 4096
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a language model, pruned at its middle layer."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    cache_rows: int  # that an engine could hold in one segment; of 7b 24,576 are 6 GiB, and a part has up to four engines


SHAPES = {"small": Shape(12, 512, 1376, 8, 65_536), "7b": Shape(32, 4096, 11008, 32, 24_576)}


@dataclass(frozen=True, slots=True)
class Setup:
    """The same weights twice."""

    language: LanguageModel
    reference: Any
    shape: Shape
    rounds: int

    @classmethod
    def make(cls, arguments: argparse.Namespace) -> Setup:
        """Random weights."""
        shape, dtype = SHAPES[arguments.shape], getattr(torch, arguments.dtype)
        served, reference = (_llama(shape, attention, dtype, arguments.device) for attention in (register_attention(), "sdpa"))
        tokens = SpecialTokens(PLACEHOLDER, frozenset({2}), frozenset({2}), frozenset())
        language = LanguageModel(served, family="bench", shape=shape_of(reference.config), tokens=tokens)
        return cls(language, reference, shape, max(5, arguments.rounds))

    @property
    def layout(self) -> PageLayout:
        """Of the cache."""
        rows = block_rows(self.language.kv_shape, self.language.dtype, self.language.device)
        return PageLayout(split_layers(self.shape.layers, (self.shape.layers // 2,)), rows, self.language.kv_shape)

    @property
    def pruned(self) -> Pruning:
        """At the middle layer."""
        return Pruning(layers=(self.shape.layers // 2,), budgets=(KeepTokens(KEPT),), rater=Rater.LAST_TOKEN)

    def engine(self, *, max_running: int = 8, rows: int | None = None) -> Engine:
        """A fresh one, its cache empty and its decode steps recorded; `rows` that it could hold in one segment."""
        layout = self.layout
        pages = (rows or self.shape.cache_rows) // layout.block_rows
        cache = KvCache(layout, pages=pages)
        scheduler = Scheduler(cache, max_context_tokens=_CONTEXT, max_running=max_running, max_step_rows=_CONTEXT)
        runner = Runner(self.language, layout, pages=pages)
        engine = Engine(runner=runner, cache=cache, scheduler=scheduler, decode=_decoder())
        engine.prepare()
        return engine

    def image(self, count: int) -> VisualTokens:
        """So many visual tokens."""
        rows = torch.randn(count, self.shape.hidden, generator=torch.Generator().manual_seed(count)) * 0.02
        return VisualTokens(
            tokens=rows.to(self.language.dtype),
            kept_indices=torch.arange(count),
            picked_by=torch.zeros(count, dtype=torch.uint8),
            merged_into=None,
            tiles=(Tile(1, count, count),),
            unreduced_count=count,
        )

    def question(self, image: VisualTokens, pruning: Pruning, *, new: int = 1, key: bytes = b"") -> EngineRequest:
        """Another question with each call; about an image that can be found again where `key` names it."""
        number = next(_names)
        ids = [
            *range(100, 100 + SYSTEM),
            *[PLACEHOLDER] * image.kept_count,
            *(200 + (number * 31 + row) % 9973 for row in range(QUESTION)),
        ]
        span = ImageSpan(0, SYSTEM, image.kept_count)
        prompt = Prompt(tuple(ids), (span,), (image,), (key or number.to_bytes(8, "big"),))
        return EngineRequest(
            request_id=f"r{number}", prompt=prompt, sampling=Sampling(max_new_tokens=new, ignore_eos=True), pruning=pruning
        )


def _llama(shape: Shape, attention: str, dtype: torch.dtype, device: str) -> Any:
    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_attention_heads=shape.heads,
        vocab_size=VOCABULARY,
        max_position_embeddings=_CONTEXT,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def _decoder() -> CheckpointDecoder:
    """A byte-level tokenizer's: made-up words of one to eight letters, a blank before each."""
    letters = "etaoinshrdlu"
    words = {
        f"Ġ{''.join(letters[number // 12**place % 12] for place in range(1 + number % 8))}{number}": number
        for number in range(VOCABULARY)
    }
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return CheckpointDecoder(tokenizer)
