"""`vscan study layer-attention`: how much of its attention the last prompt token gives to the images, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from studies.language.asking import prompts, prune_layers
from studies.language.attended import FamilyShares, LayerShares, SharesOf, by_family
from studies.language.layer_attention_plot import draw
from studies.language.shares import shares
from studies.study import Cell, Result, Table, Task
from studies.words import counted, percent
from studies.words import layers as told_layers

_PARTS = ("visual", "system", "question", "first")
# Of a layer that gives this share of the largest visual attention, or less, it is said that images are hardly looked at.
_LITTLE = 0.5


def run(task: Task) -> Result:
    """Reads the model's own attention; nothing is pruned."""
    pruned = prune_layers(task)
    read = [
        SharesOf(
            tuple(shares(task.model.language.model, asked.prompt)),
            asked.prompt.visual_rows / asked.prompt.rows,
            asked.question.family,
            asked.pictures,
        )
        for asked in prompts(task)
    ]
    families = by_family(read)
    return Result(
        table=_table(families),
        draw=partial(draw, families=families, pruned=pruned),
        findings=tuple(_findings(families)),
    )


def _table(families: Sequence[FamilyShares]) -> Table:
    parts = ("visual", "system", "question", "first_row")
    kinds = ("", "_half_width_95", "_lower_quartile", "_median", "_upper_quartile")
    columns = (
        "family",
        "questions",
        "layer",
        "visual_rows_fraction",
        *(f"{part}_fraction{kind}" for part in parts for kind in kinds),
    )
    return Table(columns, [list(_cells(family, layer)) for family in families for layer in family.layers])


def _cells(family: FamilyShares, layer: LayerShares) -> Iterator[Cell]:
    yield from (family.family, family.questions, layer.layer, family.visual_rows)
    for part in _PARTS:
        spread = getattr(layer, part)
        yield from (spread.mean, spread.half_width, spread.lower_quartile, spread.median, spread.upper_quartile)


def _findings(families: Sequence[FamilyShares]) -> Iterator[str]:
    every = families[0]
    means = [layer.visual.mean for layer in every.layers]
    most, least = means.index(max(means)), means.index(min(means))
    yield (
        f"{counted(every.questions, 'question')}, {percent(every.visual_rows)} of their rows visual: "
        "the last prompt token looks at these "
        f"most in layer {most} ({percent(means[most])} of its attention), least in layer {least} ({percent(means[least])})"
    )
    little = [layer for layer in range(most + 1, len(means)) if means[layer] <= _LITTLE * means[most]]
    if little:
        yield f"behind it half of that or less in {told_layers(little)}"
    above = [layer for layer, mean in enumerate(means) if mean > every.visual_rows]
    yield (
        f"more to a visual token than to one of text in {told_layers(above)}"
        if above
        else "in every layer less to a visual token than to one of text, on average"
    )
    firsts = [layer.first.mean for layer in every.layers]
    sink = firsts.index(max(firsts))
    yield f"the first row of the prompt gets at most {percent(firsts[sink])} (layer {sink})"
    if len(families) > 1:
        yield from _by_family(families[1:])


def _by_family(families: Sequence[FamilyShares]) -> Iterator[str]:
    """Which kinds of questions look most, over all layers."""
    means = {family.family: sum(layer.visual.mean for layer in family.layers) / len(family.layers) for family in families}
    high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    yield f"mean over the layers: most for {high} ({percent(means[high])}), least for {low} ({percent(means[low])})"
