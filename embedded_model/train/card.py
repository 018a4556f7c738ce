"""The model card and the licence note of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embedded_model.questions import FAMILIES
from embedded_model.train.plan import PLANS

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
Scenes of 1 to 6 objects (6 shapes, 8 colours, 2 sizes, 60 % with a digit) on five kinds of dull ground. Each object has one
of nine cells to itself, its centre on a patch centre within 1 px. Question families: {families}.
A quarter of the attribute, digit and position questions are about objects that are not there; the answer is "no". A tenth of
the training conversations have two turns. A scene's description decides by its checksum whether it is a training scene or a
held-out one, so no scene description is in both sets.

## Training
{steps}.

Wall-clock time of the stages, waits for other work on the machine included: {times}.

Stages 1 and 2 run side by side, stages 4 and 5 on two ranks; one CPU thread a process, bfloat16 products. Seed {seed}; one run,
the seed was not varied.

1. `vision`: the encoder alone: what each patch shows, and what [CLS] knows of the picture at three depths (after 3, 5 and 7
   layers). This makes the attention of [CLS] fall on objects from the shallow layers on.
2. `language`: the language model alone, on oracle visual tokens (sums of the embeddings of the words that describe an object).
3. `bridge`: the projector, by regression from encoder features to oracle tokens.
4. `joint`: everything together, {questions} questions behind each picture.
5. `dropout`: the same with visual-token dropout.

**This model was trained with visual-token dropout**: stages 2, 4 and 5 keep a random 11 to 100 % of the visual tokens in a part
of their batches ({dropped}), one token at least of every object, with positions
packed; stage 5 favours the objects' tokens by an amount drawn for each picture. No attention score takes part in the choice.
Large public models are not trained so. How it bears pruning says how this model bears it, not how they would. The favour was
added because pruning that keeps objects upsets the counts of a model that has seen uniform dropout alone: the weights after
stage 4 scored 91.9 on all tokens and 87.7, 83.6 and 80.4 in the three `vscan` columns below, on the same questions.

## Measured
Exact match in per cent on {pictures} held-out pictures with one question of each of the six families ("all" is over {total}
questions). `vscan N`: N of 144 visual tokens kept by the first stage of VScan (shallow layer 2, deep layer 6,
windows of 6 x 6 patches, merged). `random N`: N patches at random, not merged.

{table}

Made by `python -m embedded_model.train --out DIR --seed {seed}` (another machine rounds otherwise, so its weights will differ;
the packaged weights were made stage by stage while that command was being written, not in one run of it);
measured by `python -m embedded_model.score --pictures {pictures}`.

## Limits
The scenes are easy to prune: objects stand out from dull ground, so any informative score finds them. The model shows that a
pruned path works; it says little about which way of pruning is better on photographs.

## Licence
Apache-2.0, see LICENSE.
"""


def write_card(directory: Path, table: str, pictures: int, seed: int, seconds: Mapping[str, float]) -> None:
    """Writes README.md and LICENSE; `table` is the measured score, `seconds` the time of each stage."""
    steps = ", ".join(f"`{name}` {plan.steps} steps of {plan.pictures} pictures" for name, plan in PLANS.items())
    dropped = ", ".join(f"`{name}` {1 - plan.full_share:.0%}" for name, plan in PLANS.items() if plan.full_share < 1)
    card = CARD.format(
        families=", ".join(FAMILIES),
        steps=steps,
        times=", ".join(f"`{name}` {spent / 60:.1f} min" for name, spent in seconds.items()),
        questions=PLANS["joint"].questions,
        dropped=dropped,
        seed=seed,
        pictures=pictures,
        total=pictures * len(FAMILIES),
        table=table,
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
    (directory / "LICENSE").write_text(LICENSE_NOTE, encoding="utf-8")
