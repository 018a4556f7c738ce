"""The losses of the encoder: what each patch shows, and what [CLS] knows at three depths.

Pruning by [CLS] attention needs a [CLS] whose attention means something. What [CLS] is asked for
differs with depth, as the paper (arXiv 2505.22654) saw in CLIP that shallow layers look at
local detail and deep ones at the whole: after the shallow layer of the local scan it must know
details (colours, digits, letters), at the feature layer what a caption would tell (which shapes, in
which colours, how many). No loss looks at where the attention falls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedded_model.config import FEATURE_DEPTH, HIDDEN, SHALLOW_LAYER
from embedded_model.packing import IGNORED
from embedded_model.scenes import MAX_THINGS
from embedded_model.train.batches import PATCH_WORDS, PRESENT_SIZES, Labels

# Groups of PRESENT_SIZES that [CLS] is asked for, by the number of layers run before.
CLS_ASKED: dict[int, frozenset[str]] = {
    SHALLOW_LAYER + 1: frozenset({"colors", "digits", "letters"}),
    5: frozenset(PRESENT_SIZES),
    FEATURE_DEPTH: frozenset({"pairs", "shapes", "colors"}),
}
PRESENT = sum(PRESENT_SIZES.values())
PRESENT_WEIGHT = 12.0  # most of the 80 yes/no targets are easy
CLS_WEIGHT = 0.3


class Heads(nn.Module):
    """Linear read-outs; they serve training only and are not shipped."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [len(words) for words in PATCH_WORDS.values()]
        self.sizes = [*sizes, 3, 2]  # and: ground, object or letter; centre of an object
        self.patch = nn.Linear(HIDDEN, sum(self.sizes))
        self.cls = nn.ModuleList(nn.Linear(HIDDEN, PRESENT + MAX_THINGS) for _ in CLS_ASKED)

    def forward(self, states: list[Tensor], labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the accuracies to print, for encoder states [pictures, 145, 128]."""
        seen = self.patch(_normal(states[FEATURE_DEPTH][:, 1:])).float()
        logits = torch.split(seen, self.sizes, dim=-1)
        targets = [*labels.patch.unbind(-1), labels.kind, labels.center]
        losses = [_entropy(x, y) for x, y in zip(logits, targets, strict=True)]
        loss = torch.stack(losses).sum()
        for depth, head in zip(CLS_ASKED, self.cls, strict=True):
            loss = loss + CLS_WEIGHT * self._cls_loss(head, depth, states[depth][:, 0], labels)
        names = (*PATCH_WORDS, "kind", "center")
        right = {n: _right(x, y) for n, x, y in zip(names, logits, targets, strict=True)}
        return loss, right

    def _cls_loss(self, head: nn.Module, depth: int, state: Tensor, labels: Labels) -> Tensor:
        known = head(_normal(state)).float()
        asked = CLS_ASKED[depth]
        groups = [torch.full((size,), name in asked) for name, size in PRESENT_SIZES.items()]
        columns = torch.cat(groups).to(known.device)
        present = functional.binary_cross_entropy_with_logits(known[:, :PRESENT][:, columns], labels.present[:, columns])
        count = _entropy(known[:, PRESENT:], labels.count) if "pairs" in asked else known.new_zeros(())
        return PRESENT_WEIGHT * present + count


def _normal(hidden: Tensor) -> Tensor:
    return functional.layer_norm(hidden, hidden.shape[-1:])


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def _right(logits: Tensor, targets: Tensor) -> float:
    known = targets != IGNORED
    return (logits.argmax(-1) == targets)[known].float().mean().item()
