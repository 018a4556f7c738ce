"""A measured figure that depends on a size: points, and straight lines between them."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NotMeasured(Exception):
    """A figure that is needed was not measured; says which."""


class Curve(BaseModel):
    """`points` are (size, value), ascending in size.

    1: 10, 4: 16        at(1) = 10, at(2) = 12, at(4) = 16, at(0.5) = 10, at(5) raises NotMeasured
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    points: Annotated[tuple[tuple[NotNegative, NotNegative], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascend(self) -> Curve:
        sizes = [size for size, _ in self.points]
        if sizes != sorted(set(sizes)):
            raise ValueError("the sizes of a curve ascend")
        return self

    @property
    def largest(self) -> float:
        """The largest size that was measured."""
        return self.points[-1][0]

    def times(self, factor: float) -> Curve:
        """With every value so many times as large."""
        return Curve(points=tuple((size, value * factor) for size, value in self.points))

    def at(self, size: float) -> float:
        """The value at `size`: between points on their line, below the first its own. Raises NotMeasured beyond the last."""
        if size > self.largest:
            raise NotMeasured(f"a size of {size:g}, where {self.largest:g} is the largest that was measured")
        place = bisect_left(self.points, (size, -1.0))
        above = self.points[place]
        if place == 0 or above[0] == size:
            return above[1]
        below = self.points[place - 1]
        return below[1] + (above[1] - below[1]) * (size - below[0]) / (above[0] - below[0])


def measured(value: Curve | float | None, what: str) -> float:
    """A figure that must be there. Raises NotMeasured, naming it."""
    if value is None:
        raise NotMeasured(what)
    if isinstance(value, Curve):
        raise TypeError(what)
    return value


def curve_at(curve: Curve | None, size: float, what: str) -> float:
    """The same of a curve."""
    if curve is None:
        raise NotMeasured(what)
    try:
        return curve.at(size)
    except NotMeasured as error:
        raise NotMeasured(f"{what}: {error}") from error
