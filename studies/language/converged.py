"""When predictions are made: over many predictions, how far the model agrees with its final self after each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studies.language.groups import with_all
from studies.language.lens import Reading, Readings


@dataclass(frozen=True, slots=True, eq=False)
class Convergence:
    """One way to read, over the predictions of a family; arrays [layers + 1], entry n after n layers."""

    agreement: np.ndarray  # share of predictions whose likeliest token is the final one
    kl_nats: np.ndarray  # [layers + 1, 3]: lower quartile, mean and upper quartile of KL(final || after n layers)
    stable_from: np.ndarray  # [predictions]: of each, see `Readings`

    @classmethod
    def of(cls, readings: Sequence[Readings]) -> Convergence:
        """Over readings of one model, at least one."""
        kl = np.array([reading.kl_nats for reading in readings])
        lower, upper = np.quantile(kl, (0.25, 0.75), axis=0)
        return cls(
            agreement=np.array([reading.agrees for reading in readings]).mean(axis=0),
            kl_nats=np.stack((lower, kl.mean(axis=0), upper), axis=1),
            stable_from=np.array([reading.stable_from for reading in readings]),
        )

    @property
    def predictions(self) -> int:
        """How many."""
        return len(self.stable_from)

    @property
    def stable(self) -> np.ndarray:
        """The share of predictions that are stable after n layers or fewer, [layers + 1]."""
        shares: np.ndarray = (self.stable_from[:, None] <= np.arange(len(self.agreement))).mean(axis=0)
        return shares

    def stable_for(self, share: float) -> int:
        """The fewest layers after which at least this share of the predictions is stable; for 0.5 the (lower) median."""
        return int(np.argmax(self.stable >= share))


@dataclass(frozen=True, slots=True, eq=False)
class FamilyConvergence:
    """Of the predictions of a family."""

    family: str
    lens: Convergence
    blind: Convergence

    def readings(self) -> dict[str, Convergence]:
        """Both, by name."""
        return {"lens": self.lens, "blind": self.blind}


def by_family(readings: Sequence[tuple[str, Reading]]) -> list[FamilyConvergence]:
    """Of predictions by their family's name: all first, then each family where there are several."""
    return [
        FamilyConvergence(
            family,
            Convergence.of([reading.lens for _, reading in some]),
            Convergence.of([reading.blind for _, reading in some]),
        )
        for family, some in with_all(readings, lambda one: one[0])
    ]
