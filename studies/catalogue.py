"""Every study, by its name. No torch here: the list can be read without it."""

from __future__ import annotations

from studies.language.options import budget, keep, reduction
from studies.options import MOST_ROWS, at_least_one, drawn_rows, row_and_column, whole_number, whole_numbers
from studies.study import Option, Part, Study
from vscan.errors import InvalidArgument

_LAYERS = Option("layers", "LAYER,LAYER,…", "Which layers to draw, counted from 0. Default: spread over all.", whole_numbers)
_SHOWN = Option("show", "N", f"How many images or frames to draw, {MOST_ROWS} at most.", drawn_rows)
_PATCH = Option(
    "patch",
    "ROW,COLUMN",
    "A patch whose attention is drawn, counted from 0; may be given again. Default: a few that differ.",
    row_and_column,
    repeated=True,
)

CLS_ATTENTION = Study(
    name="cls-attention",
    title="What each layer of the vision transformer looks at",
    summary="Attention from [CLS] to the patches, layer by layer, as heat maps; for towers without [CLS] the attention that "
    "patches receive.",
    parts=frozenset({Part.VISION}),
    module="studies.vision.cls_attention",
    options=(_LAYERS, _SHOWN),
    count=32,
)
SELF_ATTENTION = Study(
    name="self-attention",
    title="How far each layer of the vision transformer looks",
    summary="Where chosen patches look, layer by layer, and the mean distance that attention spans.",
    parts=frozenset({Part.VISION}),
    module="studies.vision.self_attention",
    options=(
        _LAYERS,
        _PATCH,
        Option("image", "N", "Which of the images or videos to draw, counted from 0.", whole_number),
        Option("tile", "N", "Which tile or frame of it.", whole_number),
    ),
    count=16,
)
_REDUCTION = Option(
    "reduction", "METHOD", "What the encoder does first, as for ask: vscan, random, … Default: none, all tokens.", reduction
)
_BUDGET = Option("budget", "SHARE", "What it keeps, as for ask, with --reduction. Default: as an encoder does it.", budget)
_ANSWER_TOKENS = Option("answer-tokens", "N", "How many tokens of each answer to look at. Default: the first.", at_least_one)
_KEEP = Option(
    "keep",
    "TOKENS or N%",
    "What pruning keeps of all visual tokens of a question. Default: a third, as the paper has it.",
    keep,
)

POSITION_BIAS = Study(
    name="position-bias",
    title="Where pruning inside the language model keeps tokens",
    summary="Maps of the places that survive pruning before each layer, by either rater, and their centre of mass.",
    parts=frozenset({Part.VISION, Part.LANGUAGE}),
    module="studies.language.position_bias",
    options=(_LAYERS, _KEEP, _REDUCTION, _BUDGET),
    needs_questions=True,
    count=210,
)
LAYER_ATTENTION = Study(
    name="layer-attention",
    title="How much the language model looks at visual tokens",
    summary="The share of the last prompt token's attention that goes to visual tokens, by layer and family of questions.",
    parts=frozenset({Part.VISION, Part.LANGUAGE}),
    module="studies.language.layer_attention",
    options=(_REDUCTION, _BUDGET),
    needs_questions=True,
    count=420,
)
CONVERGENCE = Study(
    name="convergence",
    title="After how many layers predictions are made",
    summary="Logit lens: agreement and divergence between each layer's prediction and the final one; and which layers "
    "still need visual tokens.",
    parts=frozenset({Part.VISION, Part.LANGUAGE}),
    module="studies.language.convergence",
    options=(_ANSWER_TOKENS, _REDUCTION, _BUDGET),
    needs_questions=True,
    count=420,
)

STUDIES: dict[str, Study] = {
    study.name: study for study in (CLS_ATTENTION, SELF_ATTENTION, POSITION_BIAS, LAYER_ATTENTION, CONVERGENCE)
}


def study_named(name: str) -> Study:
    """The study of that name. Raises InvalidArgument, which names all."""
    if name not in STUDIES:
        raise InvalidArgument("study", f"no study {name!r}", limit=", ".join(STUDIES))
    return STUDIES[name]
