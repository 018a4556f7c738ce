"""What is compared: a way of answering, as a deployment and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from vscan.specs import Budget, KeepRatio, PruneSpec, Rater, ReductionMethod, ReductionSpec
from vscan_client.cli.questions import parse_budget

NO_REDUCTION = "no reduction"
CANDIDATE = "vscan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a service must be started with: two settings of the encoder, one of the decoder."""

    shallow_layer: int
    window: int
    prune_layers: tuple[int, ...]  # ascending; empty: none

    @property
    def encoder(self) -> tuple[int, int]:
        """The encoder's part."""
        return self.shallow_layer, self.window

    @property
    def pruned_at(self) -> str:
        """`16`, or `8,16`, or `none`, as the setting is written."""
        return ",".join(map(str, self.prune_layers)) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A deployment, and what each request asks of it. Equal points are measured once.

    `kind` is CANDIDATE, NO_REDUCTION or a control's name.
    """

    kind: str
    deployment: Deployment
    method: ReductionMethod
    budget: str  # as `--budget` has it; empty: all tokens
    local_share: float
    merge: bool
    rater: Rater
    keep: float | None = None  # share that survives each pruning layer; None: as the decoder does it by itself

    @property
    def is_control(self) -> bool:
        """Whether it is there to be compared with only."""
        return self.kind not in (CANDIDATE, NO_REDUCTION)

    @property
    def parsed_budget(self) -> Budget | None:
        """The budget of stage 1; None: all tokens."""
        return parse_budget(self.budget) if self.budget else None

    def reduction(self, draw: int) -> ReductionSpec:
        """Stage 1 of a request; a random one draws by `draw`."""
        if self.method is ReductionMethod.NONE:
            return ReductionSpec(method=self.method)
        return ReductionSpec(
            method=self.method, budget=self.parsed_budget, local_share=self.local_share, merge=self.merge, seed=draw
        )

    def prune(self, draw: int) -> PruneSpec:
        """Stage 2 of a request, with the decoder's own budgets unless `keep` says; a random rater draws by `draw`."""
        budgets = () if self.keep is None else (KeepRatio(self.keep),) * len(self.deployment.prune_layers)
        return PruneSpec(rater=self.rater, budgets=budgets, seed=draw)

    @property
    def name(self) -> str:
        """For people; unique among the points of a run."""
        if self.kind == NO_REDUCTION:
            return NO_REDUCTION
        place, parts = self.deployment, [self.kind, self.budget]
        if self.method is ReductionMethod.VSCAN:
            parts += [f"shallow {place.shallow_layer}", f"window {place.window}", f"local {self.local_share:g}"]
        if self.rater is not Rater.NONE:
            parts += [f"prune {place.pruned_at}", self.rater.value]
        if self.keep is not None:
            parts.append(f"keep {100 * self.keep:.4g}%")
        return " ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kind": self.kind,
            "method": self.method.value,
            "budget": self.budget,
            "shallow_layer": self.deployment.shallow_layer,
            "window": self.deployment.window,
            "local_share": self.local_share,
            "merge": self.merge,
            "prune_layers": list(self.deployment.prune_layers),
            "rater": self.rater.value,
            "keep": self.keep,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Reads `to_json`."""
        deployment = Deployment(
            shallow_layer=told["shallow_layer"], window=told["window"], prune_layers=tuple(told["prune_layers"])
        )
        return cls(
            kind=told["kind"],
            deployment=deployment,
            method=ReductionMethod(told["method"]),
            budget=told["budget"],
            local_share=told["local_share"],
            merge=told["merge"],
            rater=Rater(told["rater"]),
            keep=told["keep"],
        )


def in_order(points: Sequence[Point], first: Deployment) -> list[Point]:
    """The points deployment by deployment, with few restarts; `first` is what runs already.

    The next deployment is always the one that differs least from the last, and the decoder, which has most of a checkpoint to
    load, counts double. Of a whole grid of E encoders and D decoders each step then restarts one service, E x D - 1 in all.
    """
    left = list(dict.fromkeys(point.deployment for point in points))
    order, here = [], first
    while left:
        here = min(left, key=lambda other: _distance(here, other))
        left.remove(here)
        order.append(here)
    return [point for deployment in order for point in points if point.deployment == deployment]


def restarts(points: Sequence[Point], first: Deployment) -> int:
    """How many times a service is started again if the points are measured in this order."""
    path = [first, *(point.deployment for point in points)]
    return sum((here.encoder != there.encoder) + (here.prune_layers != there.prune_layers) for here, there in pairwise(path))


def _distance(here: Deployment, there: Deployment) -> int:
    return 2 * (here.prune_layers != there.prune_layers) + (here.encoder != there.encoder)
