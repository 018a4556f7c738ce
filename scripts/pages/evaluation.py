"""docs/evaluation.md and the table in README.md, from the kept evaluation of the embedded model."""

# ruff: noqa: E501  (a row of a Markdown table is one line)

from __future__ import annotations

from embedded_model.evaluate.evaluation import Evaluation
from embedded_model.evaluate.report import main_lines, to_markdown
from scripts.protos import ROOT

KEPT = ROOT / "bench" / "results" / "evaluation-cpu-2-cores.json"
_BEGIN, _END = "<!-- evaluation: written by make docs -->", "<!-- end of evaluation -->"

PAGE = """\
# The embedded model with fewer visual tokens

Written by `make docs` from [the kept run](../bench/results/{file}) of

```sh
python -m embedded_model.evaluate --questions {questions} --seed {seed} --json FILE
```

on {cores} cores of {processor} ({device}; torch {torch}, transformers {transformers}), {minutes:.0f} minutes. Every question goes through
the real services over gRPC, greedy, one question a request. {pictures} held-out pictures, one question of each family about each;
no scene of them is a training scene.{note}

- **stage 1**, **stage 2**: visual tokens that the encoder hands over, and that go on past the pruning layer, of 144, as the decoder
  reported them; **average**: over the language model's 8 layers. Pruning is before layer 4 where nothing else is said.
- **all**: exact match in per cent, every family weighing the same, with the 95 % interval (bootstrap over pictures). **retained**: in
  per cent of the score with all tokens. **less VScan**: paired difference in points from VScan at the same average. Brackets hold
  95 % intervals, each for itself: of so many, a few will miss. Those of the families are in the kept run.
- The last line is what a constant answer for each family would get: of the questions other than yes-or-no ones {no_share:.0%} are about
  what is not there, and "no" is then right.

Read it with this in mind: it is one model, one training seed, and drawn scenes. It was trained with token dropout on VScan's own
schedule (two stages, the second before layer 4, positions packed) and with nothing lost that answers questions, so rows that do
otherwise (pruning at layer 1, pooling, kept positions) are handicapped; and its [CLS] was asked for details early and for objects
late, so that a global scan misses letters is by design ([model card](../embedded_model/checkpoint/README.md)).

![Score against average visual tokens](images/evaluation.png)

*`vscan bench --from bench/results/{file} --plot docs/images/evaluation.png`*

{table}

What is to be seen in this run:

- VScan keeps 99 % of the score with one ninth of the tokens; random patches lose 30 points there, and 17 of them even when the rest
  is merged and stage 2 follows. Which patches the encoder hands over matters most.
- The **global scan alone** loses letters (small, faint, away from the objects); the **local scan alone** loses nothing, and is ahead of
  both together at 11 %, within the interval. Its windows suit scenes with something in every part.
- **At layer 4 the choice does not matter**: survivors drawn at random, and none at all, do as well as attention. By then this
  model has read what it needs, as critics of pruning in middle layers found for larger ones. What the second stage earns is that the
  first may hand over more at an equal average: with stage 1 alone at 11 % the score is 1.3 points lower.
- Pruning inside the language model **alone, at layer 1**, costs 3 points at both averages that it can reach: too early to know what
  the question needs, or not trained for.
- Merging, the rater's text row and the position policy change nothing that these questions show.
- **Pooling** and a **coarser picture** lose letters and digits: fine detail is what they average away.

What each row is:

| | |
|---|---|
| all tokens | no reduction anywhere |
| VScan | 1.5 x the average after stage 1 (half by the local, half by the global scan, the rest merged into them), a third of these past layer 4 |
| stage 1 only | the average by VScan's stage 1, no pruning |
| stage 2 only | all tokens up to the pruning layer. At layer 4 the average cannot go below half of all, so the row is given at VScan's last count and compared with nothing; at layer 1 it is given at the same average, which cannot go below 18 |
| global, local scan only | both stages, one scan |
| no merging | both stages, dropped tokens are lost |
| random patches | the average at random, lost; "stage 2": 1.5 x the average at random, then pruning by attention; "merged": the rest merged |
| random at layer 4 | VScan's stage 1, survivors drawn at random for each question |
| drop all at layer 4 | twice the average by VScan's stage 1, none past layer 4 |
| text-mean rater | tokens rated by all text rows, not the last one |
| positions kept | rows keep their positions past layer 4, instead of 0..n-1 |
| pooling | means of 2 x 2 or 3 x 3 tokens, no pruning |
| half resolution | the picture at 48 x 48 px, scaled up again: this encoder reads 96 px only, so fewer pixels alone save no tokens. Pooled too, it loses detail twice and stands for no published method |

Where the attention of [CLS] falls is in the [model card](../embedded_model/checkpoint/README.md); maps of a few pictures
(`vscan study cls-attention`, [studies.md](studies.md)), layer by layer:

![Attention from CLS to the patches, by layer](images/cls-attention.png)
"""


def evaluation_page() -> str:
    """The page."""
    kept = Evaluation.read(KEPT)
    where = kept.environment
    return PAGE.format(
        file=KEPT.name,
        questions=kept.questions,
        seed=kept.seed,
        cores=where["cores"],
        processor=where["processor"],
        device=where["device"],
        torch=where["torch"],
        transformers=where["transformers"],
        minutes=kept.seconds / 60,
        pictures=kept.pictures,
        no_share=kept.no_share,
        note=f" {kept.note}" if kept.note else "",
        table=to_markdown(kept.lines, kept.constant),
    )


def readme_page() -> str:
    """README.md with its table written anew."""
    text = (ROOT / "README.md").read_text()
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    kept = Evaluation.read(KEPT)
    table = to_markdown(main_lines(kept.lines), kept.constant)
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"
