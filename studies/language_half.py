"""The language half of a checkpoint in this process: prompts as the decoder writes them, walked layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch.nn.functional import scaled_dot_product_attention

from decoder_service.chat import Chat, MediaKind, MediaPart, Role, TextPart, Turn
from decoder_service.language.base import LanguageModel, Rope
from decoder_service.language.registry import load_language
from decoder_service.prompt import PromptWriter
from decoder_service.request import Prompt
from vscan.checkpoint import Checkpoint
from vscan.transfer import to_device
from vscan.visual_tokens import VisualTokens


@dataclass(frozen=True, slots=True, eq=False)
class LayerInput:
    """What a layer is about to be given; with the number of layers as `layer`, what the last one gave."""

    layer: int
    rows: torch.Tensor  # [rows, hidden]
    rope: Rope  # of all rows


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    kind: MediaKind
    tokens: VisualTokens


class WholePrompt:
    """The plan by which the layers attend to one prompt, all rows at once, and nothing is remembered."""

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Causal attention: [heads, rows, head_dim], of keys and values those of their own heads → [rows, heads, head_dim]."""
        rows = scaled_dot_product_attention(
            queries[None], keys[None], values[None], is_causal=True, scale=scaling, enable_gqa=queries.shape[0] != keys.shape[0]
        )
        return rows[0].transpose(0, 1)


class LanguageHalf:
    """Reads prompts.

    Args:
        model: a loaded language half.
        writer: of the same checkpoint.
    """

    def __init__(self, model: LanguageModel, writer: PromptWriter) -> None:
        self.model = model
        self.writer = writer

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> Self:
        """Loads it. Raises CheckpointError."""
        model = load_language(checkpoint, dtype=dtype, device=device)
        return cls(model, PromptWriter.open(checkpoint, model.tokens))

    def prompt(self, question: str, shown: Sequence[VisualTokens]) -> Prompt:
        """A question behind images and videos, in the checkpoint's chat template, as `vscan ask` sends it.

        Raises:
            InvalidArgument: a text that the template or the tokenizer cannot take.
            FailedPrecondition: the checkpoint has no chat template.
        """
        kinds = [MediaKind.IMAGE if tokens.frames is None else MediaKind.VIDEO for tokens in shown]
        parts = [MediaPart("image", kind) for kind in kinds]
        ids = self.writer.ids(Chat((Turn("", Role.USER, (*parts, TextPart("question", question))),)))
        media = [_Shown(kind, tokens) for kind, tokens in zip(kinds, shown, strict=True)]
        return self.writer.lay_out(ids, [one.tokens for one in self.writer.in_prompt_order(ids, media)])

    @torch.inference_mode()
    def walk(self, prompt: Prompt) -> Iterator[LayerInput]:
        """What each layer is given of the whole prompt, without any pruning, and at last what the last layer gave."""
        rows = self.model.prompt_rows(prompt)[None]
        rope = self.model.rope(rows, to_device(self.model.prompt_positions(prompt).places, self.model.device))
        plan = WholePrompt()
        for index, layer in enumerate(self.model.layers):
            yield LayerInput(index, rows[0], rope)
            rows = layer(rows, attention_mask=None, position_embeddings=rope, plan=plan)
        yield LayerInput(len(self.model.layers), rows[0], rope)
