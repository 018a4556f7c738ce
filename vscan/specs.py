"""What a request may ask of the two stages: typed, validated values. No torch, no generated types.

A field that is `None` means "as the deployment does it"; `filled_from` fills it in. Only a filled spec has a canonical form.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from vscan.errors import InvalidArgument

# Guards floor() against 1.5 x (1/9) x 576 coming out as 95.999..., and 0.29 x 100 as 28.999...
_FLOOR_SLACK = 1e-9
T = TypeVar("T")
# The paper's default: 64 of 576 tokens on average (96 after stage 1, 32 from half the layers on).
DEFAULT_AVERAGE = 1 / 9
STAGE_ONE_PER_AVERAGE = 1.5


class ReductionMethod(StrEnum):
    """How the encoder chooses the tokens to keep."""

    VSCAN = "vscan"
    GLOBAL = "global"
    LOCAL = "local"
    RANDOM = "random"
    POOL = "pool"
    NONE = "none"


class Rater(StrEnum):
    """How the decoder ranks visual tokens before a pruning layer."""

    LAST_TOKEN = "last_token"
    TEXT_MEAN = "text_mean"
    RANDOM = "random"
    DROP_ALL = "drop_all"
    NONE = "none"


class PositionPolicy(StrEnum):
    """What becomes of positions after pruning."""

    RENUMBER = "renumber"
    KEEP = "keep"


def round_down(amount: float) -> int:
    """Rounds a token count down, forgiving binary fractions a hair below an integer."""
    return math.floor(amount + _FLOOR_SLACK)


def floor_tokens(amount: float) -> int:
    """Rounds a token count down, at least one, as forgiving as `round_down`."""
    return max(1, round_down(amount))


def _at_most(most: int, counts: Sequence[int]) -> list[int]:
    return [min(most, count) for count in counts]


def _check_fraction(value: float, field: str) -> None:
    if not 0 < value <= 1:  # also false for NaN
        raise InvalidArgument(field, f"{value:g}", limit="over 0 to 1")


def _check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**64:
        raise InvalidArgument("seed", f"{seed}", limit="0 to 2^64 - 1")


@dataclass(frozen=True, slots=True)
class TokensPerTile:
    """Keep this many tokens of each tile."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidArgument("budget.tokens_per_tile", f"{self.count}", limit="1 to the tokens of a tile")

    def tokens(self, tile_tokens: int) -> int:
        """Tokens to keep of a tile of `tile_tokens`; more than it has is InvalidArgument."""
        if self.count > tile_tokens:
            raise InvalidArgument("budget.tokens_per_tile", f"{self.count}", limit=f"{tile_tokens} tokens of a tile")
        return self.count


@dataclass(frozen=True, slots=True)
class Ratio:
    """Keep this fraction of each tile's tokens, rounded down, at least one."""

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, "budget.ratio")

    def tokens(self, tile_tokens: int) -> int:
        """Tokens to keep of a tile of `tile_tokens`."""
        return floor_tokens(self.fraction * tile_tokens)


@dataclass(frozen=True, slots=True)
class TargetAverage:
    """Keep this fraction on average over the language model's layers: stage 1 keeps 1.5 times as much, at most all."""

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, "budget.target_average")

    def tokens(self, tile_tokens: int) -> int:
        """Tokens that stage 1 keeps of a tile of `tile_tokens`."""
        return floor_tokens(min(1.0, STAGE_ONE_PER_AVERAGE * self.fraction) * tile_tokens)


@dataclass(frozen=True, slots=True)
class TotalTokens:
    """Keep this many tokens of the whole image or video: an equal share of each tile, the first ones one more.

    What a tile cannot use goes to the others; more than there are keeps all.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidArgument("budget.total_tokens", f"{self.count}", limit="at least one for each tile")

    def shares(self, tile_tokens: Sequence[int]) -> list[int]:
        """Tokens for each tile of so many, none for one that has none. Raises InvalidArgument where another would get none.

        total 10    tiles of 9 9 9 9    shares 3 3 2 2
                             9 1 0 9           5 1 0 4
                             2 1 2 4           2 1 2 4
        """
        level = bisect_right(range(max(tile_tokens) + 1), self.count, key=lambda most: sum(_at_most(most, tile_tokens))) - 1
        shares = _at_most(level, tile_tokens)
        if not level and any(tile_tokens):
            tiles = sum(map(bool, tile_tokens))
            raise InvalidArgument("budget.total_tokens", f"{self.count}", limit=f"at least {tiles}, one for each tile")
        larger = [tile for tile, tokens in enumerate(tile_tokens) if tokens > level]
        for tile in larger[: self.count - sum(shares)]:
            shares[tile] += 1
        return shares

    def tokens(self, tile_tokens: int) -> int:
        """Tokens to keep of an image of one tile of `tile_tokens`; all, where it has fewer."""
        return min(self.count, tile_tokens)


Budget = TokensPerTile | Ratio | TargetAverage | TotalTokens

_READS_LOCAL_SHARE = {ReductionMethod.VSCAN}
_READS_MERGE = {ReductionMethod.VSCAN, ReductionMethod.GLOBAL, ReductionMethod.LOCAL, ReductionMethod.RANDOM}
_READS_SEED = {ReductionMethod.RANDOM}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReductionSpec:
    """Stage 1. `None`: the deployment's default."""

    method: ReductionMethod | None = None
    budget: Budget | None = None
    local_share: float | None = None
    merge: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.local_share is not None and not 0 <= self.local_share <= 1:
            raise InvalidArgument("local_share", f"{self.local_share:g}", limit="0 to 1")
        _check_seed(self.seed)

    def filled_from(self, defaults: ReductionSpec) -> ReductionSpec:
        """Every field that the method reads is set, every other is `None`, so that equal work has one form.

        `defaults` must have every field set.
        """
        method = self.method or defaults.method
        if method is None:
            raise ValueError("the deployment's defaults lack a method")
        return ReductionSpec(
            method=method,
            budget=None if method is ReductionMethod.NONE else (self.budget or defaults.budget),
            local_share=_first(self.local_share, defaults.local_share) if method in _READS_LOCAL_SHARE else None,
            merge=_first(self.merge, defaults.merge) if method in _READS_MERGE else None,
            seed=_first(self.seed, defaults.seed) if method in _READS_SEED else None,
        )

    def canonical(self) -> bytes:
        """One byte string for one meaning; of a filled spec only. Part of the content key."""
        if self.method is None or not self._is_filled():
            raise ValueError("only a filled ReductionSpec has a canonical form")
        budget = None if self.budget is None else [type(self.budget).__name__, *_amount(self.budget)]
        fields = [self.method.value, budget, _hex(self.local_share), self.merge, self.seed]
        return json.dumps(fields, separators=(",", ":")).encode()

    def _is_filled(self) -> bool:
        read = [
            (self.budget, self.method is not ReductionMethod.NONE),
            (self.local_share, self.method in _READS_LOCAL_SHARE),
            (self.merge, self.method in _READS_MERGE),
            (self.seed, self.method in _READS_SEED),
        ]
        return all((value is not None) == needed for value, needed in read)


def _first(value: T | None, default: T | None) -> T | None:
    return default if value is None else value


def _hex(value: float | None) -> str | None:
    return None if value is None else (value + 0.0).hex()  # -0.0 means 0.0


def _amount(budget: Budget) -> list[int | str]:
    return [budget.count] if isinstance(budget, TokensPerTile | TotalTokens) else [float(budget.fraction).hex()]


DEFAULT_REDUCTION = ReductionSpec(
    method=ReductionMethod.VSCAN, budget=TargetAverage(DEFAULT_AVERAGE), local_share=0.5, merge=True, seed=0
)


# No camera takes more, and screens show fewer.
MAX_FRAMES_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True)
class FrameCount:
    """So many frames of a video, spread evenly over it."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidArgument("frames", f"{self.count}", limit="at least 1")


@dataclass(frozen=True, slots=True)
class FrameRate:
    """So many frames for each second of a video."""

    per_second: float

    def __post_init__(self) -> None:
        if not 0 < self.per_second <= MAX_FRAMES_PER_SECOND:  # also false for NaN
            raise InvalidArgument("frames_per_second", f"{self.per_second:g}", limit=f"over 0 to {MAX_FRAMES_PER_SECOND:g}")


FrameSampling = FrameCount | FrameRate


# Of frames that are sent where neither the request nor the deployment says at which rate they were taken.
SENT_FRAMES_PER_SECOND = 1.0


def filled_sampling(asked: FrameSampling | None, default: FrameSampling, *, sent_frames: bool = False) -> FrameSampling:
    """What a video's content key has: one rule for a file, for frames that are sent, and for the name of either.

    Raises InvalidArgument for a number of frames where they are sent: all of those are looked at.
    """
    if sent_frames and isinstance(asked, FrameCount):
        raise InvalidArgument("sampling.frames", "set for frames that are sent", limit="frames_per_second")
    return asked or default


def sent_frame_rate(filled: FrameSampling) -> float:
    """Frames a second of a video that is sent as frames."""
    return filled.per_second if isinstance(filled, FrameRate) else SENT_FRAMES_PER_SECOND


def canonical_sampling(sampling: FrameSampling) -> bytes:
    """One byte string for one meaning. Part of a video's content key."""
    amount = sampling.count if isinstance(sampling, FrameCount) else float(sampling.per_second).hex()
    return json.dumps([type(sampling).__name__, amount], separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class KeepTokens:
    """This many visual tokens of the whole prompt survive."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidArgument("tokens", f"{self.count}", limit="at least 1")


@dataclass(frozen=True, slots=True)
class KeepRatio:
    """This fraction of the visual tokens that reach the layer survives, rounded down."""

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, "ratio")


PruneBudget = KeepTokens | KeepRatio


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """Stage 2. `None`, or no budgets: the deployment's default."""

    rater: Rater | None = None
    budgets: tuple[PruneBudget, ...] = ()
    seed: int | None = None
    positions: PositionPolicy | None = None

    def __post_init__(self) -> None:
        _check_seed(self.seed)

    def filled_from(self, defaults: PruneSpec) -> PruneSpec:
        """Rater, seed and positions from `defaults` where unset; budgets stay as they are (the planner fills them)."""
        return replace(
            self,
            rater=self.rater or defaults.rater,
            seed=_first(self.seed, defaults.seed),
            positions=self.positions or defaults.positions,
        )


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is one JSON value that fits this schema."""

    text: str  # the schema, as JSON

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> JsonSchema:
        """A schema as Python has it. Raises InvalidArgument where JSON has no such value."""
        try:
            return cls(json.dumps(schema, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidArgument("sampling.json_schema", f"not JSON: {error}") from error


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches this regular expression."""

    pattern: str


Constraint = JsonSchema | Regex


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How tokens are chosen; the fields of `SamplingParams`. `None`: the deployment's default."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    n: int | None = None
