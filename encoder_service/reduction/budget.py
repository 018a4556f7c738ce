"""How many tokens to keep of a tile, and how the scans share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from vscan.specs import Budget, ReductionMethod, ReductionSpec, TokensPerTile, TotalTokens, round_down


@dataclass(frozen=True, slots=True)
class Grid:
    """The tokens of a tile, row-major."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """N, the tokens of the tile."""
        return self.rows * self.columns


class WindowShare(StrEnum):
    """How windows share the local scan's budget."""

    EQUAL = "equal"  # equally many of each window
    CAPPED = "capped"  # the best of the tile, no window more than its equal share, rounded up


@dataclass(frozen=True, slots=True, kw_only=True)
class ReductionPlan:
    """What becomes of a tile, decided. Tiles with equal plans are reduced together."""

    grid: Grid
    window: int
    share: WindowShare = WindowShare.EQUAL
    method: ReductionMethod
    keep_tokens: int  # T; for pooling the number of cells
    local_tokens: int = 0  # what the local scan may take at most, of keep_tokens
    merge: bool = False


def plan_reduction(spec: ReductionSpec, grid: Grid, window: int, share: WindowShare = WindowShare.EQUAL) -> ReductionPlan:
    """Decides a filled spec for one grid. Keeping all tokens is no reduction, whatever the method.

    Raises:
        InvalidArgument: more tokens are asked for than the tile has.
    """
    method = spec.method or ReductionMethod.NONE
    keep = grid.tokens if spec.budget is None else spec.budget.tokens(grid.tokens)
    if method is ReductionMethod.NONE or keep == grid.tokens:
        return ReductionPlan(grid=grid, window=window, method=ReductionMethod.NONE, keep_tokens=grid.tokens)
    if method is ReductionMethod.POOL:
        keep = pool_grid(grid, keep).tokens
    return ReductionPlan(
        grid=grid,
        window=window,
        share=share,
        method=method,
        keep_tokens=keep,
        local_tokens=_local_tokens(spec, keep),
        merge=bool(spec.merge) and method is not ReductionMethod.POOL,
    )


def plan_tiles(
    spec: ReductionSpec,
    grids: Sequence[Grid],
    window: int,
    share: WindowShare = WindowShare.EQUAL,
    counted: Sequence[bool] | None = None,
) -> tuple[ReductionPlan, ...]:
    """Decides a filled spec for every tile of an image or video; tiles that are not `counted` are kept whole.

    Raises:
        InvalidArgument: a total that does not give each counted tile a token.
    """
    counted = counted or [True] * len(grids)
    budgets: list[Budget | None] = [spec.budget] * sum(counted)
    if isinstance(spec.budget, TotalTokens):
        budgets = [TokensPerTile(tokens) for tokens in spec.budget.shares(len(budgets))]
    left = iter(budgets)
    specs = [replace(spec, budget=next(left) if counts else None) for counts in counted]
    return tuple(plan_reduction(spec_for(own, grid), grid, window, share) for own, grid in zip(specs, grids, strict=True))


def spec_for(spec: ReductionSpec, grid: Grid) -> ReductionSpec:
    """The spec for one tile of many sizes: of a tile with fewer tokens than a count asks for, all are kept."""
    if isinstance(spec.budget, TokensPerTile) and spec.budget.count > grid.tokens:
        return replace(spec, budget=TokensPerTile(grid.tokens))
    return spec


def pool_grid(grid: Grid, budget_tokens: int) -> Grid:
    """The finest grid of cells with the tile's aspect that has at most `budget_tokens` cells.

    24 x 24 and 96 tokens: 9 x 9 cells (10 x 10 would be 100). A budget below one row of that aspect gives one row of cells.
    """
    shapes = (Grid(rows, max(1, round(rows * grid.columns / grid.rows))) for rows in range(1, grid.rows + 1))
    fitting = [shape for shape in shapes if shape.tokens <= budget_tokens]
    return max(fitting, key=lambda shape: shape.tokens, default=Grid(1, min(budget_tokens, grid.columns)))


def _local_tokens(spec: ReductionSpec, keep: int) -> int:
    if spec.method is ReductionMethod.LOCAL:
        return keep
    return round_down((spec.local_share or 0.0) * keep)
