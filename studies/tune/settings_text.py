"""The settings file of a point, in the form that `vscan up --settings` reads; its first lines say where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from studies.tune.point import Point
from vscan.specs import Ratio, ReductionMethod, TargetAverage, TokensPerTile

NAME = "settings.toml"


def settings_of(point: Point) -> dict[str, dict[str, Any]]:
    """What each service must be told so that a request that says nothing is answered in the way of the point.

    Raises:
        ValueError: the budget is one that only requests can have.
    """
    place = point.deployment
    encoder: dict[str, Any] = {
        "shallow_layer": place.shallow_layer,
        "window": place.window,
        "reduction_method": point.method.value,
    }
    if point.method is not ReductionMethod.NONE:
        encoder |= _budget(point)
        encoder |= {"reduction_local_share": point.local_share, "reduction_merge": point.merge}
    layers: Any = list(place.prune_layers) if place.prune_layers else "none"
    decoder: dict[str, Any] = {"prune_layers": layers, "prune_rater": point.rater.value}
    if point.keep is not None:
        decoder["prune_keep"] = point.keep
    return {"encoder": encoder, "decoder": decoder}


def settings_text(point: Point, comments: Sequence[str]) -> str:
    """The file, TOML 1.0."""
    lines = [f"# {_in_one_line(comment)}".rstrip() for comment in comments]
    for service, settings in settings_of(point).items():
        lines += ["", f"[{service}]", *(f"{name} = {_value(value)}" for name, value in settings.items())]
    return "\n".join(lines) + "\n"


def _budget(point: Point) -> dict[str, Any]:
    match point.parsed_budget:
        case TokensPerTile(count):
            return {"reduction_tokens_per_tile": count}
        case Ratio(fraction):
            return {"reduction_ratio": fraction}
        case TargetAverage(fraction):
            return {"reduction_target_average": fraction}
    raise ValueError(f"no setting has the budget {point.budget!r}")


def _in_one_line(comment: str) -> str:
    """A path or an argument may hold a line's end, which would end the comment, and bytes that are no text."""
    printable = (each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in comment)
    return "".join(printable)


def _value(value: Any) -> str:
    """Numbers, switches, lists of numbers and plain texts are the same in TOML and JSON."""
    return json.dumps(value)
