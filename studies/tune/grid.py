"""The grid: every combination of the values asked for, what nothing is cut from, and the controls at the same average.

A setting that a point's other settings leave unread is that of the reference deployment, so that equal work is one point:
without a local scan the shallow layer and the window change nothing, without a second stage the pruning layer does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Self

from studies.tune.point import CANDIDATE, NO_REDUCTION, Deployment, Point
from vscan.errors import InvalidArgument
from vscan.specs import Rater, Ratio, ReductionMethod, TargetAverage, TokensPerTile
from vscan_client.cli.questions import parse_budget
from vscan_client.description import Description

# A hair over 2/9, 1/9 and 1/18: counts are rounded down, and 11.1 % of 144 or 576 tokens would be one less than a ninth.
DEFAULT_BUDGETS = ("avg:22.23%", "avg:11.12%", "avg:5.56%")
DEFAULT_SHARES = (0.5,)
DEFAULT_RATERS = (Rater.LAST_TOKEN,)
DEFAULT_KEEPS = (None,)
_KEPT_AT_A_LAYER = 1 / 3  # of a budget that is no average, by default
_RANKS = tuple(rater for rater in Rater if rater not in (Rater.NONE, Rater.DROP_ALL))
_CONTROL_RATERS = {Rater.RANDOM: "random at layer {}", Rater.DROP_ALL: "drop all at layer {}", Rater.NONE: "stage 1 only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The values that the user gave; an empty one means the defaults, which depend on the model."""

    shallow_layers: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    local_shares: tuple[float, ...] = ()
    prune_layers: tuple[tuple[int, ...], ...] = ()
    raters: tuple[Rater, ...] = ()
    budgets: tuple[str, ...] = ()
    keeps: tuple[float | None, ...] = ()

    @property
    def first_settings(self) -> dict[str, dict[str, str]]:
        """What the services are started with: the first of each that was given."""
        encoder, decoder = {}, {}
        if self.shallow_layers:
            encoder["shallow_layer"] = str(self.shallow_layers[0])
        if self.windows:
            encoder["window"] = str(self.windows[0])
        if self.prune_layers:
            decoder["prune_layers"] = ",".join(map(str, self.prune_layers[0]))
        return {"encoder": encoder, "decoder": decoder}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the grid must know of a model, and how it was served first."""

    layers: int  # of the language model
    deep_layer: int  # of the encoder
    tokens_per_tile: int
    shallow_layer: int
    window: int
    prune_layers: tuple[int, ...]

    @classmethod
    def of(cls, described: Description) -> Self:
        """As the two services say."""
        encoder, decoder = described.encoder, described.decoder
        assert encoder is not None
        return cls(
            layers=decoder.layers,
            deep_layer=encoder.deep_layer,
            tokens_per_tile=encoder.tokens_per_tile,
            shallow_layer=encoder.shallow_layer,
            window=encoder.window,
            prune_layers=tuple(decoder.prune_layers),
        )

    @property
    def reference(self) -> Deployment:
        """What was started first."""
        return Deployment(shallow_layer=self.shallow_layer, window=self.window, prune_layers=self.prune_layers)


def filled(wanted: Wanted, known: Known) -> Wanted:
    """Every value set: what was given, else what the model has by itself and two more on its sides.

    Of an encoder that reads layer 5 of 22 with windows of 6, and a language model pruned at 16 of 32: shallow layers 5, 2 and
    10, windows 6 and 3, pruning layers 16, 8 and 20.
    """
    shallow, window, layers = known.shallow_layer, known.window, known.layers
    beside = [(layers // 4,), (layers * 5 // 8,)] if len(known.prune_layers) == 1 else []
    return Wanted(
        shallow_layers=wanted.shallow_layers or _distinct(shallow, shallow // 2, min(2 * shallow, known.deep_layer)),
        windows=wanted.windows or _distinct(window, max(1, window // 2)),
        local_shares=wanted.local_shares or DEFAULT_SHARES,
        prune_layers=wanted.prune_layers or _distinct(known.prune_layers, *(layer for layer in beside if layer[0])),
        raters=wanted.raters or DEFAULT_RATERS,
        budgets=wanted.budgets or DEFAULT_BUDGETS,
        keeps=wanted.keeps or DEFAULT_KEEPS,
    )


def build_points(values: Wanted, known: Known) -> list[Point]:
    """No reduction first, then the grid, then the controls; each point once.

    Args:
        values: every one set, the reference's first.
    """
    reference = Deployment(
        shallow_layer=values.shallow_layers[0], window=values.windows[0], prune_layers=values.prune_layers[0]
    )
    points = [no_reduction(reference)]
    for prune, shallow, window in product(values.prune_layers, values.shallow_layers, values.windows):
        deployment = Deployment(shallow_layer=shallow, window=window, prune_layers=prune)
        for share, rater, budget, keep in product(values.local_shares, values.raters, values.budgets, values.keeps):
            points.append(_plain(_split(deployment, budget, keep, known, rater=rater, local_share=share), reference))
    for budget, prune, keep in product(values.budgets, values.prune_layers, values.keeps):
        place = replace(reference, prune_layers=prune)
        points += _controls(budget, keep, place, reference, known, values.local_shares[0])
    return list({_identity(point): point for point in reversed(points)}.values())[::-1]


def no_reduction(deployment: Deployment) -> Point:
    """The model as published."""
    return _point(deployment, "", kind=NO_REDUCTION, method=ReductionMethod.NONE, rater=Rater.NONE)


def average_share(budget: str, prune_layers: Sequence[int], known: Known, keep: float | None = None) -> float:
    """The fraction of the visual tokens that a budget holds on average over the layers, by plan.

    An average is what it says. Of another budget a third, or `keep`, survives each pruning layer: 33 % before one at half the
    layers are 33 % x (1 + 1/3) / 2 = 22 %.
    """
    parsed = parse_budget(budget)
    if isinstance(parsed, TargetAverage):
        return parsed.fraction
    first = parsed.tokens(known.tokens_per_tile) / known.tokens_per_tile
    return first * _held(_KEPT_AT_A_LAYER if keep is None else keep, prune_layers, known)


def _held(keep: float, prune_layers: Sequence[int], known: Known) -> float:
    """Of the tokens after stage 1, those that the language model has on average where `keep` survives each pruning layer."""
    spans = [high - low for low, high in pairwise((0, *prune_layers, known.layers))]
    return sum(span * keep**stage for stage, span in enumerate(spans)) / known.layers


def _split(place: Deployment, budget: str, keep: float | None, known: Known, **given: Any) -> Point:
    """A point whose `keep` is given; of an average, stage 1 then keeps as many as leave it the average.

    The paper's ablation: 11.1 % of 576 on average, a half kept at layer 16 of 32: stage 1 keeps 11.1 % / 0.75 = 14.8 %.
    """
    parsed = parse_budget(budget)
    if keep is not None and place.prune_layers and given["rater"] in _RANKS and isinstance(parsed, TargetAverage):
        first = parsed.fraction / _held(keep, place.prune_layers, known)
        if first > 1:
            told = f"{keep:.4g} at {place.pruned_at} leaves no {budget}: stage 1 would keep {100 * first:.1f}% of the tokens"
            raise InvalidArgument("--keep", told, limit="100%")
        budget = _percent(first)
    return _point(place, budget, keep=keep, **given)


def check_budget(text: str) -> str:
    """A budget that a deployment can have for a default. Raises InvalidArgument for a total, which only requests can have."""
    if not isinstance(parse_budget(text), TokensPerTile | Ratio | TargetAverage):
        raise InvalidArgument("budget", f"{text!r} is a request's only, no setting has it", limit="96, 33% or avg:11.1%")
    return text


def _controls(
    budget: str, keep: float | None, place: Deployment, reference: Deployment, known: Known, share: float
) -> list[Point]:
    """What token reduction has to be better than, at the average of `budget` under `place`."""
    average = average_share(budget, place.prune_layers, known, keep)
    alone = _percent(average)

    def plain(kind: str, method: ReductionMethod, *, merge: bool = True) -> Point:
        return _plain(
            _point(place, alone, kind=kind, method=method, merge=merge, rater=Rater.NONE, local_share=share), reference
        )

    points = [
        plain("stage 1 only", ReductionMethod.VSCAN),
        plain("random patches", ReductionMethod.RANDOM, merge=False),
        plain("average pooling", ReductionMethod.POOL, merge=False),
    ]
    if place.prune_layers:
        points.append(_plain(_split(place, budget, keep, known, rater=Rater.RANDOM, local_share=share), reference))
        before = average * known.layers / place.prune_layers[0]
        if before <= 1:  # all that are dropped there cannot be more than all there are
            points.append(_plain(_point(place, _percent(before), rater=Rater.DROP_ALL, local_share=share), reference))
    return points


def _point(deployment: Deployment, budget: str, **given: Any) -> Point:
    values = {"kind": CANDIDATE, "method": ReductionMethod.VSCAN, "local_share": 0.5, "merge": True, **given}
    return Point(deployment=deployment, budget=budget, **values)


def _plain(point: Point, reference: Deployment) -> Point:
    """The same work with what is not read as in the reference, under the name of the control that it is, if it is one."""
    place = point.deployment
    scans = point.method is ReductionMethod.VSCAN and point.local_share > 0
    if not scans:
        place = replace(place, shallow_layer=reference.shallow_layer, window=reference.window)
    if point.rater is Rater.NONE:
        place = replace(place, prune_layers=reference.prune_layers)
    keep = point.keep if point.rater in _RANKS and place.prune_layers else None
    kind = point.kind
    if kind == CANDIDATE and point.rater in _CONTROL_RATERS:
        kind = _CONTROL_RATERS[point.rater].format(place.pruned_at)
    return replace(point, kind=kind, deployment=place, keep=keep)


def _identity(point: Point) -> tuple[Any, ...]:
    budget = point.parsed_budget
    rounded = (
        None if budget is None else (type(budget), round(getattr(budget, "fraction", 0) or getattr(budget, "count", 0), 9))
    )
    return (point.method, rounded, point.local_share, point.merge, point.rater, point.keep, point.deployment)


def _percent(share: float) -> str:
    return f"{100 * share:.10g}%"


def _distinct(*values: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))
