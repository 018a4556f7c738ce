"""Values as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from vscan.specs import KeepRatio, KeepTokens, Ratio, TargetAverage, TokensPerTile

# A budget's class is its meaning, so it becomes the name: {"ratio": 0.333}. The names are the contract's.
_BUDGETS = {
    TokensPerTile: "tokens_per_tile",
    Ratio: "ratio",
    TargetAverage: "target_average",
    KeepTokens: "tokens",
    KeepRatio: "ratio",
}


def jsonable(value: Any) -> Any:
    """`value` in objects, lists, strings and numbers: bytes in hexadecimal, dataclasses by their fields."""
    if type(value) in _BUDGETS:
        amount = value.count if hasattr(value, "count") else value.fraction
        return {_BUDGETS[type(value)]: amount}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value
