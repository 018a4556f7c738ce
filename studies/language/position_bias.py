"""`vscan study position-bias`: where pruning before each layer keeps tokens (VScan, arXiv 2505.22654, empirical studies)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from studies.language.asking import prompts, prune_layers
from studies.language.bias import BiasCounter, LayerBias, PositionBias
from studies.language.position_bias_plot import draw
from studies.language.retained import RATERS, retained
from studies.study import Cell, Result, Table, Task
from studies.words import counted, percent, ranges
from studies.words import layers as told_layers
from vscan.errors import InvalidArgument
from vscan.specs import KeepRatio, Rater

_DEFAULT_KEEP = KeepRatio(1 / 3)
_DRAWN = 8
# A centre of mass that is farther from where it would be without a bias, as a fraction of the picture's side, is told as one.
_STRAY = 0.05
# Nearer to each other, two shares are one.
_SAME = 1e-9
# A narrower interval is not told.
_TOLD = 0.0005


def run(task: Task) -> Result:
    """Ranks every question's visual tokens before every layer but the first, by both raters that read the model."""
    layers = range(1, task.model.language.model.shape.layers)
    drawn, pruned = _drawn(task.options.get("layers"), layers), prune_layers(task)
    counter = BiasCounter()
    for asked in prompts(task):
        kept = retained(task.model.language.model, asked.prompt, layers, task.options.get("keep", _DEFAULT_KEEP))
        counter.add(asked.prompt, kept, asked.pictures)
    bias = counter.result()
    return Result(
        table=_curve(bias),
        more={"map": _map(bias)},
        draw=partial(draw, bias=bias, layers=drawn, pruned=pruned),
        findings=tuple(_findings(bias)),
    )


def _drawn(asked: Sequence[int] | None, layers: range) -> list[int]:
    """Raises InvalidArgument for layers that are not there."""
    if not layers:
        raise InvalidArgument("--model", "one layer, so that nothing can be pruned before another", limit="two layers")
    odd = [layer for layer in asked or () if layer not in layers]
    if odd:
        raise InvalidArgument("--layers", f"{ranges(odd)}", limit=f"{layers[0]} to {layers[-1]}, of pruning layers")
    if asked:
        return list(asked)
    spread = min(_DRAWN, len(layers))
    return sorted({layers[round(index * (len(layers) - 1) / max(1, spread - 1))] for index in range(spread)})


def _curve(bias: PositionBias) -> Table:
    columns = (
        "prune_layer",
        "rater",
        "questions",
        *(f"centre_row_fraction{part}" for part in ("", "_half_width_95", "_lower_quartile", "_upper_quartile")),
        *(f"centre_column_fraction{part}" for part in ("", "_half_width_95", "_lower_quartile", "_upper_quartile")),
        "row_deviation_fraction",
        "column_deviation_fraction",
        "raster_position_fraction",
        "unevenness_fraction",
        "unevenness_by_chance_fraction",
    )
    return Table(columns, [list(_cells(each, bias.prompts)) for each in (bias.candidates, *bias.layers)])


def _cells(bias: LayerBias, prompts: int) -> Iterator[Cell]:
    """The first row is what the encoder handed over: nothing is pruned there."""
    yield from ("" if bias.rater is Rater.NONE else bias.layer, _name(bias.rater), prompts)
    for spread in (bias.row, bias.column):
        yield from (spread.mean, spread.half_width, spread.lower_quartile, spread.upper_quartile)
    yield from (bias.row_deviation, bias.column_deviation, bias.raster.mean, bias.unevenness, bias.chance)


def _map(bias: PositionBias) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in (bias.candidates, *bias.layers):
        layer: Cell = "" if each.rater is Rater.NONE else each.layer
        for (row, column), share in _entries(each):
            rows.append((layer, _name(each.rater), row, column, share))
    return Table(("prune_layer", "rater", "row", "column", "retained_fraction"), rows)


def _entries(bias: LayerBias) -> Iterator[tuple[tuple[int, int], float]]:
    down, across = bias.map.shape
    yield from (((row, column), float(bias.map[row, column])) for row in range(down) for column in range(across))


def _name(rater: Rater) -> str:
    return "candidates" if rater is Rater.NONE else rater.value


def _findings(bias: PositionBias) -> Iterator[str]:
    kept = percent(float(bias.layers[0].map.mean()))
    known = "with 95 % intervals" if np.isfinite(bias.candidates.row.half_width) else "without intervals, of one picture"
    yield (
        f"{counted(bias.prompts, 'question')}, {kept} of the places kept; centres of mass as fractions of height and width, "
        f"{known}; without a bias {_centre(bias.candidates)}"
    )
    for rater in RATERS:
        yield from (f"{rater}: {line}" for line in _of_rater(bias.of(rater), bias.candidates))


def _of_rater(biases: Sequence[LayerBias], candidates: LayerBias) -> Iterator[str]:
    worst = max(biases, key=lambda each: _distance(each, candidates))
    yield f"{_told(worst, candidates)} before layer {worst.layer}: {_centre(worst)}"
    strays = [each.layer for each in biases if _strays(each, candidates)]
    where = f"{told_layers(strays)} ({len(strays)} of {len(biases)})" if strays else "no layer"
    surely = "" if any(map(_unknown, biases)) else " and beyond the interval"
    yield f"more than {_STRAY} off{surely} before {where}"
    even = min(biases, key=lambda each: each.unevenness)
    if max(each.unevenness for each in biases) - even.unevenness < _SAME:  # as of one question, wherever its tokens stand
        return
    yield (
        f"most evenly spread before layer {even.layer}: {percent(even.unevenness)} of what is kept would have to stand "
        f"elsewhere to be spread as the candidates are ({percent(even.chance)} if drawn at random)"
    )


def _told(bias: LayerBias, without: LayerBias) -> str:
    """`low and left in the picture`."""
    down, right = bias.row.mean - without.row.mean, bias.column.mean - without.column.mean
    vertical = ("low" if down > 0 else "high") if abs(down) > _STRAY else ""
    horizontal = ("right" if right > 0 else "left") if abs(right) > _STRAY else ""
    words = " and ".join(filter(None, (vertical, horizontal)))
    return f"keeps tokens {words} in the picture, farthest" if words else "the centre of what is kept is farthest off"


def _centre(bias: LayerBias) -> str:
    def told(mean: float, half_width: float) -> str:
        known = _TOLD < half_width < float("inf")
        return f"{mean:.2f} ± {half_width:.2f}" if known else f"{mean:.2f}"

    return f"row {told(bias.row.mean, bias.row.half_width)}, column {told(bias.column.mean, bias.column.half_width)}"


def _distance(bias: LayerBias, without: LayerBias) -> float:
    return max(abs(bias.row.mean - without.row.mean), abs(bias.column.mean - without.column.mean))


def _strays(bias: LayerBias, without: LayerBias) -> bool:
    """Beyond `_STRAY`, and beyond what is known of the mean; of one picture nothing is."""
    pairs = ((bias.row, without.row), (bias.column, without.column))
    return any(abs(mine.mean - other.mean) > max(_STRAY, 0 if _unknown(bias) else mine.half_width) for mine, other in pairs)


def _unknown(bias: LayerBias) -> bool:
    return not np.isfinite(bias.row.half_width)
