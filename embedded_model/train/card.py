"""The model card and the licence note of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embedded_model.evaluate.evaluation import Evaluation
from embedded_model.evaluate.report import main_lines, to_markdown
from embedded_model.questions import FAMILIES
from embedded_model.train.plan import PLANS, scaled

LICENSE_NOTE = """\
This model (weights, tokenizer and configuration) is licensed under the Apache License, Version 2.0.
You may obtain a copy of the License in the file LICENSE at the root of this repository, or at
http://www.apache.org/licenses/LICENSE-2.0
It was trained from random weights on drawn pictures; it contains no third-party weights or data.
"""

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# Embedded model: a small LLaVA-1.5 for drawn scenes

A model of the LLaVA-1.5 architecture (`LlavaForConditionalGeneration`: CLIP ViT, two-layer projector, Llama), small
enough to travel with the code and to answer on a CPU in milliseconds. It was trained from random weights on pictures
drawn by this repository's `embedded_model` package. It answers questions about such pictures and about nothing else.

| part | size |
|---|---|
| picture | 96 x 96 px, patch 8: 12 x 12 = 144 visual tokens |
| encoder | CLIP ViT, hidden 128, 8 layers, 4 heads, MLP 384; features of layer -2, [CLS] dropped |
| language model | Llama, hidden 128, 8 layers, 4 heads, MLP 320, word embeddings tied to the head |
| tokenizer | one token a word, lower case; unknown words become `<unk>` |
| prompt | `USER: <image> is there any red circle? ASSISTANT:` (`<s>` is added) |

Layer 7 of the encoder lies behind the feature layer. LLaVA never reads it; it was not trained.

## Data
Scenes of 1 to 6 objects (6 shapes, 8 colours, 2 sizes, 60 % with a digit) and up to 2 letters, on a dull, cluttered ground
(seven textures, strokes, blots). Nine cells; each holds one object, one letter or one saturated distractor (confetti, scribble,
ribbons) at most; centres lie on a patch centre within 1 px. A letter is one faint patch on the ground, away from every object.
Nothing is asked about distractors and clutter.

Question families: {families}. Of the held-out questions other than yes-or-no ones, {no_share:.0%} are about what is not
there; the answer is "no". A tenth of the training conversations have two turns. Whether one object is left of another was tried
earlier on easier scenes and not learned; there is no family of relations.

A scene's description decides by its checksum whether it is a training scene or a held-out one, so no scene description is in
both sets.

## Training
{steps}.

Wall-clock time of the stages, waits for other work on the machine included: {times}; {wall_min:.0f} min in all.

On a CPU, stages 1 and 2 run side by side, stages 4 and 5 on two ranks with so many pictures each; one thread a process,
bfloat16 products. Seed {seed}; one run, the seed was not varied.

1. `vision`: the encoder alone: what each patch shows, and what [CLS] knows of the picture at three depths: after 3 layers
   details (colours, digits, letters), after 5 everything, after 7 what a caption would tell (shapes in colours, how many).
2. `language`: the language model alone, on oracle visual tokens (sums of the embeddings of the words that describe an item).
3. `bridge`: the projector, by regression from encoder features to oracle tokens.
4. `joint`: everything together, {questions} questions behind each picture.
5. `dropout`: the same with more visual-token dropout.

**This model was trained with visual-token dropout**: stages 2, 4 and 5 keep a random 11 to 100 % of the visual tokens in a part
of their batches ({dropped}), one token at least of every object and letter, with positions packed; in {cut} of the
batches two thirds of what is left go before layer 4 of the language model, at random too. Stage 5 favours tokens of objects
and letters by an amount drawn for each picture. No attention score takes part in the choice, but the schedule
is that of VScan's default (two stages, the second at half the layers, positions packed), and what answers the questions is
never lost; pruning at another layer, merging, pooling and kept positions were not trained. Large public models are not trained
so: how this model bears pruning says nothing about how they would.

**Which scan finds what was shaped by the training**: [CLS] was asked for details early and for objects late, as the paper
(arXiv 2505.22654) saw it in CLIP. So a global scan misses letters here because the training made it so. What the
evaluation tells is whether the stages work together as the method says, not whether the method is right about CLIP.

## Attention of [CLS]
Share of the attention from [CLS] to patches in per cent, by layer (mean over heads and {attention_pictures} held-out
pictures; `vscan study cls-attention --count {attention_pictures} --seed {seed}`). The local scan reads layer 2, the global scan
layer 6.

{attention}

## Measured
Exact match in per cent on {pictures} held-out pictures with one question of each family ({total} questions in each row),
through the services, greedy. `stage 1`, `stage 2`: visual tokens after it; `average`: over the layers; brackets: 95 %,
bootstrap over pictures; `less VScan`: paired difference in points. All rows are in `docs/evaluation.md`.

{table}

Made by `python -m embedded_model.train --out DIR --seed {seed}` (another machine rounds otherwise, so its weights will differ).

Past layer 4 this model needs no visual token any more: survivors drawn at random there, or none, do as well, so it cannot tell
raters apart. The local scan alone does as well as both together.

## Limits
One small model, drawn scenes, 144 tokens of which a tenth matter. It shows that the pruned path works and what each control
costs here; it cannot say which way of pruning is better on photographs.

## Licence
Apache-2.0, see LICENSE.
"""


def write_card(
    directory: Path,
    evaluation: Evaluation,
    attention: str,
    attention_pictures: int,
    seconds: Mapping[str, float],
    scale: float = 1.0,
) -> None:
    """Writes README.md and LICENSE; `attention` is a table, `seconds` the time of each stage, `scale` that of the steps."""
    steps = ", ".join(f"`{name}` {scaled(plan.steps, scale)} steps of {plan.pictures} pictures" for name, plan in PLANS.items())
    dropped = ", ".join(f"`{name}` {1 - plan.full_share:.0%}" for name, plan in PLANS.items() if plan.full_share < 1)
    cut = " and ".join(f"{plan.cut_share:.0%} (`{name}`)" for name, plan in PLANS.items() if plan.cut_share)
    card = CARD.format(
        families=", ".join(FAMILIES),
        steps=steps,
        times=", ".join(f"`{name}` {spent / 60:.1f} min" for name, spent in seconds.items()),
        wall_min=_wall_minutes(seconds),
        questions=PLANS["joint"].questions,
        dropped=dropped,
        cut=cut,
        seed=evaluation.seed,
        attention=attention,
        attention_pictures=attention_pictures,
        pictures=evaluation.pictures,
        total=evaluation.questions,
        no_share=evaluation.no_share,
        table=to_markdown(main_lines(evaluation.lines), evaluation.constant),
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
    (directory / "LICENSE").write_text(LICENSE_NOTE, encoding="utf-8")


def _wall_minutes(seconds: Mapping[str, float]) -> float:
    """The stages one after the other, the first two side by side."""
    together = max(seconds["vision"], seconds["language"])
    return (together + sum(seconds[name] for name in ("bridge", "joint", "dropout"))) / 60
