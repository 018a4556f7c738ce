"""A number over many questions: its mean with what is known of it, and its quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Standard errors to both sides that hold 95 % of Student's t of 1, 2, … degrees of freedom, and of the normal distribution.
_STUDENT_95 = (12.706, 4.303, 3.182, 2.776)
_NORMAL_95 = 1.95996


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, quartiles, and half the width of the mean's 95 % interval (infinite for a single group)."""

    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float], groups: Sequence[str]) -> Spread:
        """Over `values`, NaN left out. Values of one group (the questions about a picture) are taken to depend on each other.

        The interval is that of a mean over clusters: its standard error comes of the groups' summed deviations, and with few
        groups Student's t makes it as wide as it has to be.
        """
        numbers = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(numbers)
        if not known.any():
            return cls(*(float("nan"),) * 5)
        of_group = np.unique(np.asarray(groups)[known], return_inverse=True)[1]
        numbers = numbers[known]
        mean = float(numbers.mean())
        lower, median, upper = (float(quartile) for quartile in np.quantile(numbers, (0.25, 0.5, 0.75)))
        return cls(mean, lower, median, upper, _half_width(numbers - mean, of_group))


def _half_width(deviations: np.ndarray, of_group: np.ndarray) -> float:
    sums = np.bincount(of_group, weights=deviations)
    count = len(sums)
    if count < 2:
        return float("inf")
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / len(deviations)
    return float(_standard_errors(count - 1) * error)


def _standard_errors(freedom: int) -> float:
    """Student's 97.5 % quantile; beyond the table by its expansion around the normal one (Abramowitz and Stegun, 26.7.5)."""
    if freedom <= len(_STUDENT_95):
        return _STUDENT_95[freedom - 1]
    z = _NORMAL_95
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
