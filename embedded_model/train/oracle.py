"""Oracle visual tokens: what a perfect encoder would tell the language model.

A token of an object is the sum of the embeddings of its words (shape, colour, size, digit or "no",
row, column), tied to the language model's own, plus a learned term that marks the centre; a
letter's is that of the letter, its row and its column, plus a learned term; the ground has a
learned token. The language model learns its questions on these before any picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedded_model.config import HIDDEN
from embedded_model.train.batches import LETTER, Labels

NOISE = 0.1  # standard deviation of the added noise over that of the tokens


class Oracle(nn.Module):
    """The learned terms; the word embeddings are the language model's."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle_ground = nn.Parameter(0.04 * torch.randn(HIDDEN))
        self.oracle_center = nn.Parameter(0.04 * torch.randn(HIDDEN))
        self.oracle_letter = nn.Parameter(0.04 * torch.randn(HIDDEN))

    def forward(self, embed: nn.Module, labels: Labels, noise: float = 0.0) -> Tensor:
        """Oracle tokens [pictures, 144, 128] float32."""
        words = (embed(labels.words) * (labels.words > 0)[..., None]).sum(dim=2)
        words = words + labels.center[..., None] * self.oracle_center
        words = words + (labels.kind == LETTER)[..., None] * self.oracle_letter
        tokens = torch.where((labels.owner >= 0)[..., None], words, self.oracle_ground)
        if noise:
            tokens = tokens + noise * tokens.detach().std() * torch.randn_like(tokens)
        return tokens
