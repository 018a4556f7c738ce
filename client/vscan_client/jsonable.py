"""Values as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from vscan.specs import FrameCount, FrameRate, KeepRatio, KeepTokens, Ratio, TargetAverage, TokensPerTile, TotalTokens

# The class of a budget or a sampling is its meaning, so it becomes the name: {"ratio": 0.333}. The names are the contract's.
_AMOUNTS = {
    TokensPerTile: "tokens_per_tile",
    Ratio: "ratio",
    TargetAverage: "target_average",
    TotalTokens: "total_tokens",
    KeepTokens: "tokens",
    KeepRatio: "ratio",
    FrameCount: "frames",
    FrameRate: "frames_per_second",
}


def jsonable(value: Any) -> Any:
    """`value` in objects, lists, strings and numbers: bytes in hexadecimal, dataclasses by their fields."""
    if type(value) in _AMOUNTS:
        (amount,) = (getattr(value, item.name) for item in fields(value))
        return {_AMOUNTS[type(value)]: amount}
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
