"""The language half of a checkpoint in this process: its model, and prompts as the decoder writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from decoder_service.chat import Chat, MediaKind, MediaPart, Role, TextPart, Turn
from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.prompt import PromptWriter
from decoder_service.request import Prompt
from vscan.checkpoint import Checkpoint
from vscan.visual_tokens import VisualTokens


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    kind: MediaKind
    tokens: VisualTokens


class LanguageHalf:
    """Writes prompts for a model.

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
