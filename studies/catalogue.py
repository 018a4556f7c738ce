"""Every study, by its name. No torch here: the list can be read without it."""

from __future__ import annotations

from studies.options import at_least_one, row_and_column, whole_numbers
from studies.study import Option, Part, Study
from vscan.errors import InvalidArgument

_LAYERS = Option("layers", "LAYER,LAYER,…", "Which layers to draw, counted from 0. Default: spread over all.", whole_numbers)
_SHOWN = Option("show", "N", "How many images or frames to draw.", at_least_one)
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
    summary="Where chosen patches look, layer by layer, and the mean distance that attention spans: from local to global.",
    parts=frozenset({Part.VISION}),
    module="studies.vision.self_attention",
    options=(_LAYERS, _PATCH),
    count=16,
)

STUDIES: dict[str, Study] = {study.name: study for study in (CLS_ATTENTION, SELF_ATTENTION)}


def study_named(name: str) -> Study:
    """The study of that name. Raises InvalidArgument, which names all."""
    if name not in STUDIES:
        raise InvalidArgument("study", f"no study {name!r}", limit=", ".join(STUDIES))
    return STUDIES[name]
