"""Exact match on held-out questions: `python -m embedded_model.score`.

An answer is right when every token of it and the `</s>` after it is the model's first choice given
the right tokens before it: the same as greedy decoding giving exactly that answer, for a greedy
decoder's prefix is the right one up to its first mistake. So one packed forward pass tells.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from embedded_model import checkpoint_dir
from embedded_model.config import VISUAL_TOKENS
from embedded_model.model import answer_logits, encoder_states, visual_tokens
from embedded_model.packing import IGNORED, Pack, pack
from embedded_model.pixels import pixels_of
from embedded_model.questions import FAMILIES, Question, ask
from embedded_model.reduction import Reduction, reduced_tokens
from embedded_model.scenes import Split, draw_scene, seeded

_STREAM = 7002  # keeps the scorer's draws apart from those of other uses of the same seed
BATCH = 25  # pictures
BUDGETS = (48, 32, 16)  # 33, 22 and 11 % of 144


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out pictures with one question of every family each."""

    pixels: Tensor  # [pictures, 3, 96, 96]
    questions: list[list[Question]]


def draw_exam(seed: int, pictures: int) -> Exam:
    """`pictures` held-out scenes, one question of every family each."""
    rng = seeded(seed, _STREAM)
    scenes = [draw_scene(rng, Split.HELD_OUT) for _ in range(pictures)]
    questions = [[ask(family, scene.layout, rng) for family in FAMILIES] for scene in scenes]
    return Exam(pixels_of(scenes), questions)


def load_model(directory: Path) -> LlavaForConditionalGeneration:
    """The checkpoint in float32, with eager attention in the encoder."""
    return LlavaForConditionalGeneration.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation={"vision_config": "eager", "text_config": "sdpa"},
    ).eval()


@torch.no_grad()
def score(
    model: LlavaForConditionalGeneration,
    exam: Exam,
    budget: int = VISUAL_TOKENS,
    reduction: Reduction = Reduction.VSCAN,
) -> dict[str, float]:
    """The share of right answers by family and under "all", with `budget` visual tokens."""
    right: Counter[str] = Counter()
    torch.manual_seed(0)  # for the random choice
    for start in range(0, len(exam.questions), BATCH):
        pixels = exam.pixels[start : start + BATCH]
        asked = exam.questions[start : start + BATCH]
        if budget == VISUAL_TOKENS:
            visual = visual_tokens(model, encoder_states(model, pixels)[-1])
        else:
            visual = reduced_tokens(model, pixels, budget, reduction)
        together = pack([[(question,) for question in row] for row in asked])
        for row, good in zip(asked, _right(model, visual, together), strict=True):
            right.update(q.family for q, fine in zip(row, good, strict=True) if fine)
    shares = {family: right[family] / len(exam.questions) for family in FAMILIES}
    return {"all": sum(shares.values()) / len(FAMILIES), **shares}


def _right(model: LlavaForConditionalGeneration, visual: Tensor, asked: Pack) -> list[list[bool]]:
    """For every picture and segment, whether all its targets are the first choices."""
    chosen = answer_logits(model, visual, asked).argmax(-1)
    wrong = (asked.targets != IGNORED) & (chosen != asked.targets)
    count = int(asked.segments.max())
    bad = torch.zeros(len(wrong), count + 1).scatter_add_(1, asked.segments, wrong.float())
    rows: list[list[bool]] = (bad[:, 1:] == 0).tolist()
    return rows


def score_table(model: LlavaForConditionalGeneration, exam: Exam) -> str:
    """A Markdown table in per cent: all tokens, then each budget by stage 1 and at random."""
    columns: dict[str, Mapping[str, float]] = {f"all {VISUAL_TOKENS} tokens": score(model, exam)}
    for reduction in Reduction:
        for budget in BUDGETS:
            name = f"{reduction.value} {budget}"
            columns[name] = score(model, exam, budget, reduction)
    lines = ["| family | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for family in ("all", *FAMILIES):
        cells = " | ".join(f"{100 * column[family]:.1f}" for column in columns.values())
        lines.append(f"| {family} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table for a checkpoint directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=checkpoint_dir())
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    exam = draw_exam(asked.seed, asked.pictures)
    print(score_table(load_model(asked.checkpoint), exam))


if __name__ == "__main__":
    main()
