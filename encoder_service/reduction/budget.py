"""How many tokens to keep of a tile, and how the scans share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch

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


def plan_reduction(
    spec: ReductionSpec,
    grid: Grid,
    window: int,
    share: WindowShare = WindowShare.EQUAL,
    valid: torch.Tensor | None = None,
) -> ReductionPlan:
    """Decides a filled spec for one grid. Keeping all tokens is no reduction, whatever the method.

    Args:
        valid: which tokens budgets count, those that are not padding, [N], bool; None: all.

    Raises:
        InvalidArgument: more tokens are asked for than the tile has.
    """
    method = spec.method or ReductionMethod.NONE
    tokens = _count(grid, valid)
    keep = tokens if spec.budget is None else spec.budget.tokens(tokens)
    if method is ReductionMethod.NONE or keep >= tokens:
        return ReductionPlan(grid=grid, window=window, method=ReductionMethod.NONE, keep_tokens=grid.tokens)
    if method is ReductionMethod.POOL:
        keep = pool_grid(grid, keep, valid).tokens
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
    *,
    counted: Sequence[bool] | None = None,
    valid: Sequence[torch.Tensor | None] | None = None,
) -> tuple[ReductionPlan, ...]:
    """Decides a filled spec for every tile of an image or video.

    Args:
        counted: whether budgets count each tile; the others are kept whole. None: they count all.
        valid: for each tile what they count of it, see `plan_reduction`. None: all.

    Raises:
        InvalidArgument: a total that does not give a token to each tile that has any.
    """
    masks = valid or [None] * len(grids)
    counts = counted or [True] * len(grids)
    tokens = [_count(grid, mask) if counts_it else 0 for grid, mask, counts_it in zip(grids, masks, counts, strict=True)]
    budgets = _tile_budgets(spec.budget, tokens)
    return tuple(
        plan_reduction(replace(spec, budget=budget), grid, window, share, mask)
        for budget, grid, mask in zip(budgets, grids, masks, strict=True)
    )


def pool_grid(grid: Grid, budget_tokens: int, valid: torch.Tensor | None = None) -> Grid:
    """The finest grid of cells with the tile's aspect of which at most `budget_tokens` hold a token that is not padding.

    24 x 24 and 96 tokens: 9 x 9 cells (10 x 10 would be 100). A budget below one row of that aspect gives one row of cells.
    """
    shapes = (Grid(rows, max(1, round(rows * grid.columns / grid.rows))) for rows in range(1, grid.rows + 1))
    fitting = [shape for shape in shapes if _cells_in_use(grid, shape, valid) <= budget_tokens]
    return max(fitting, key=lambda shape: shape.tokens, default=Grid(1, min(budget_tokens, grid.columns)))


def pool_cells(grid: Grid, cells: Grid, device: torch.device | None = None) -> torch.Tensor:
    """The cell of each token, [N], int64, row-major. 5 x 7 tokens in 2 x 3 cells:

    0 0 0 1 1 2 2
    0 0 0 1 1 2 2
    0 0 0 1 1 2 2
    3 3 3 4 4 5 5
    3 3 3 4 4 5 5
    """
    rows = torch.arange(grid.rows, device=device) * cells.rows // grid.rows
    columns = torch.arange(grid.columns, device=device) * cells.columns // grid.columns
    return (rows[:, None] * cells.columns + columns).flatten()


def _count(grid: Grid, valid: torch.Tensor | None) -> int:
    return grid.tokens if valid is None else int(valid.sum())


def _cells_in_use(grid: Grid, cells: Grid, valid: torch.Tensor | None) -> int:
    return cells.tokens if valid is None else len(set(pool_cells(grid, cells)[valid].tolist()))


def _tile_budgets(budget: Budget | None, tokens: Sequence[int]) -> list[Budget | None]:
    """Each tile's own, of these tokens; None for one that has nothing to count."""
    if isinstance(budget, TotalTokens):
        counts = budget.shares(tokens)
    elif isinstance(budget, TokensPerTile):
        counts = [min(budget.count, count) for count in tokens]
    else:
        return [budget if count else None for count in tokens]
    return [TokensPerTile(count) if count else None for count in counts]


def _local_tokens(spec: ReductionSpec, keep: int) -> int:
    if spec.method is ReductionMethod.LOCAL:
        return keep
    return round_down((spec.local_share or 0.0) * keep)
