"""Intervals by bootstrap over pictures: questions about one picture succeed and fail together, so whole pictures are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 4_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Resamples of the same pictures for every row, so that differences are paired.

    Args:
        pictures: how many there are.
        seed: of the resampling.
    """

    def __init__(self, pictures: int, seed: int) -> None:
        rng = np.random.default_rng(seed % 2**64)
        drawn = rng.integers(pictures, size=(RESAMPLES, pictures))
        # How often each picture is in each resample, [RESAMPLES, pictures]: a mean is then one matrix product.
        self._weights = np.stack([np.bincount(row, minlength=pictures) for row in drawn]) / pictures

    def mean(self, per_picture: np.ndarray) -> Estimate:
        """The mean of `per_picture` [pictures]; for paired differences give the differences."""
        return _estimate(float(per_picture.mean()), self._weights @ per_picture)

    def ratio(self, above: np.ndarray, below: np.ndarray) -> Estimate:
        """The ratio of two means, both [pictures]; not a number where the lower one is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled = (self._weights @ above) / (self._weights @ below)
            return _estimate(float(np.divide(above.mean(), below.mean())), resampled)


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
