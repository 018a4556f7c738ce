"""What may be asked on the command line and in a line of `ask-many`, as the SDK's values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from vscan.errors import InvalidArgument
from vscan.specs import (
    Budget,
    KeepRatio,
    KeepTokens,
    PruneBudget,
    PruneSpec,
    Rater,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    SamplingSpec,
    TargetAverage,
    TokensPerTile,
)
from vscan_client.content import Image
from vscan_client.options import AskOptions

E = TypeVar("E", bound=StrEnum)
_AVERAGE = "avg:"
_DIGEST = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionOptions:
    """How one question is answered; `None` is as the deployment does it. Texts are parsed by `ask_options`."""

    reduction: str | None = None
    budget: str | None = None
    rater: str | None = None
    keep: str | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    report_kept: bool = False

    def ask_options(self) -> AskOptions:
        """As keywords of the client's verbs. Raises InvalidArgument naming the option."""
        return AskOptions(
            reduction=self._reduction(), prune=self._prune(), sampling=self._sampling(), report_kept=self.report_kept
        )

    def _reduction(self) -> ReductionSpec | None:
        if self.reduction is None and self.budget is None:
            return None
        method = None if self.reduction is None else _one_of(ReductionMethod, self.reduction, "reduction")
        seed = self.seed if method is ReductionMethod.RANDOM else None
        return ReductionSpec(method=method, budget=parse_budget(self.budget) if self.budget else None, seed=seed)

    def _prune(self) -> PruneSpec | None:
        if self.rater is None and self.keep is None:
            return None
        rater = None if self.rater is None else _one_of(Rater, self.rater, "rater")
        seed = self.seed if rater is Rater.RANDOM else None
        return PruneSpec(rater=rater, budgets=parse_keep(self.keep) if self.keep else (), seed=seed)

    def _sampling(self) -> SamplingSpec:
        return SamplingSpec(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=self.stop,
        )


def parse_budget(text: str) -> Budget:
    """`96`: tokens of each tile; `33%`: of a tile's tokens; `avg:11.1%`: on average over the language model's layers."""
    if text.startswith(_AVERAGE):
        return TargetAverage(_fraction(text.removeprefix(_AVERAGE), "budget"))
    return Ratio(_fraction(text, "budget")) if text.endswith("%") else TokensPerTile(_count(text, "budget"))


def parse_keep(text: str) -> tuple[PruneBudget, ...]:
    """One budget for each pruning layer, with commas between: `32` visual tokens, or `33%` of those that reach the layer."""
    return tuple(
        KeepRatio(_fraction(part, "keep")) if part.endswith("%") else KeepTokens(_count(part, "keep"))
        for part in text.replace(" ", "").split(",")
    )


def parse_image(text: str, folder: Path | None = None) -> Image:
    """A file, relative to `folder`; or `sha256:…`, an image that the server has seen."""
    if text.startswith(_DIGEST):
        return Image.from_digest(text.removeprefix(_DIGEST))
    return Image.from_path(text if folder is None else folder / text)


def _fraction(text: str, field: str) -> float:
    try:
        return float(text.removesuffix("%") if text.endswith("%") else "") / 100
    except ValueError:
        raise InvalidArgument(field, f"{text!r} is not a percentage such as 11.1%") from None


def _count(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(field, f"{text!r} is neither a number of tokens nor a percentage")
    return int(text)


def _one_of(names: type[E], text: str, field: str) -> E:
    try:
        return names(text)
    except ValueError:
        raise InvalidArgument(field, f"{text!r}", limit=", ".join(names)) from None
