"""The losses of the encoder: what each patch shows, and what [CLS] knows at three depths.

The [CLS] losses make the attention of [CLS] fall on the objects from the shallow layer on, which
pruning by [CLS] attention needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedded_model.config import FEATURE_DEPTH, HIDDEN, SHALLOW_LAYER
from embedded_model.packing import IGNORED
from embedded_model.scenes import MAX_THINGS
from embedded_model.train.batches import PATCH_WORDS, Labels

CLS_DEPTHS = (SHALLOW_LAYER + 1, 5, FEATURE_DEPTH)  # layers run before [CLS] is asked
PRESENT = 48 + 6 + 8 + 10
PRESENT_WEIGHT = 12.0  # most of the 72 yes/no targets are easy
CLS_WEIGHT = 0.3


class Heads(nn.Module):
    """Linear read-outs; they serve training only and are not shipped."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [len(words) for words in PATCH_WORDS.values()]
        self.sizes = [*sizes, 2, 2]  # and: on an object, centre of one
        self.patch = nn.Linear(HIDDEN, sum(self.sizes))
        self.cls = nn.ModuleList(nn.Linear(HIDDEN, PRESENT + MAX_THINGS) for _ in CLS_DEPTHS)

    def forward(self, states: list[Tensor], labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the accuracies to print, for encoder states [pictures, 145, 128]."""
        seen = self.patch(_normal(states[FEATURE_DEPTH][:, 1:])).float()
        logits = torch.split(seen, self.sizes, dim=-1)
        targets = [*labels.patch.unbind(-1), (labels.owner >= 0).long(), labels.center]
        losses = [_entropy(x, y) for x, y in zip(logits, targets, strict=True)]
        loss = torch.stack(losses).sum()
        for depth, head in zip(CLS_DEPTHS, self.cls, strict=True):
            loss = loss + CLS_WEIGHT * self._cls_loss(head, states[depth][:, 0], labels)
        names = (*PATCH_WORDS, "object", "center")
        right = {n: _right(x, y) for n, x, y in zip(names, logits, targets, strict=True)}
        return loss, right

    def _cls_loss(self, head: nn.Module, state: Tensor, labels: Labels) -> Tensor:
        known = head(_normal(state)).float()
        present = functional.binary_cross_entropy_with_logits(known[:, :PRESENT], labels.present)
        return PRESENT_WEIGHT * present + _entropy(known[:, PRESENT:], labels.count)


def _normal(hidden: Tensor) -> Tensor:
    return functional.layer_norm(hidden, hidden.shape[-1:])


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def _right(logits: Tensor, targets: Tensor) -> float:
    known = targets != IGNORED
    return (logits.argmax(-1) == targets)[known].float().mean().item()
