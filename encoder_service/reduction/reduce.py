"""Stage 1 as a whole: scores and projected tokens in, kept tokens out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from encoder_service.reduction.budget import ReductionPlan, WindowShare, pool_cells, pool_grid
from encoder_service.reduction.controls import random_scores
from encoder_service.reduction.merge import gather_rows, mean_rows, merge_dropped
from encoder_service.reduction.scan import capped_scan, keep_best, local_scan
from vscan.specs import ReductionMethod
from vscan.transfer import to_device
from vscan.visual_tokens import PickedBy


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How much each token matters, float32: of packed rows, [rows], or of tiles of one grid, [tiles, N]."""

    shallow: torch.Tensor
    deep: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ReducedTiles:
    """The kept tokens of tiles with one plan."""

    tokens: torch.Tensor  # [tiles, T, hidden]
    kept: torch.Tensor  # [tiles, T], int64, ascending
    picked_by: torch.Tensor  # [tiles, T], uint8, values of PickedBy
    # [tiles, N], int64, below T; None if dropped tokens are lost. What it says of dropped padding means nothing.
    merged_into: torch.Tensor | None

    @property
    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in (self.tokens, self.kept, self.picked_by, self.merged_into) if tensor is not None]

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> ReducedTiles:
        merged = None if self.merged_into is None else change(self.merged_into)
        return ReducedTiles(change(self.tokens), change(self.kept), change(self.picked_by), merged)

    def to(self, device: str, *, non_blocking: bool = False) -> ReducedTiles:
        """The same, on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def clone(self) -> ReducedTiles:
        """The same, in memory of its own."""
        return self._each(torch.clone)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps its memory from others until what `stream` was given so far is done."""
        for tensor in self._tensors:
            tensor.record_stream(stream)

    def __getitem__(self, tiles: slice) -> ReducedTiles:
        return self._each(lambda tensor: tensor[tiles])


def reduce_tiles(
    tokens: torch.Tensor,
    scores: Scores,
    plan: ReductionPlan,
    tile_seeds: torch.Tensor,
    valid: torch.Tensor | None = None,
) -> ReducedTiles:
    """Carries out a plan on tiles of its grid. Every tile keeps exactly `plan.keep_tokens` tokens, padding last.

    Args:
        tokens: after the projector, [tiles, N, hidden].
        tile_seeds: [tiles], int64, on the CPU; read by the random control only.
        valid: which tokens are not padding, [tiles, N], bool; None: all, or padding is treated like the rest.
    """
    if plan.method is ReductionMethod.NONE:
        return _keep_all(tokens)
    if plan.method is ReductionMethod.POOL:
        return _pool(tokens, plan, valid)
    kept, picked_by = _pick(scores, plan, tile_seeds, valid)
    if not plan.merge:
        return ReducedTiles(gather_rows(tokens, kept), kept, picked_by, None)
    merged, merged_into = merge_dropped(tokens, kept, valid)
    return ReducedTiles(merged, kept, picked_by, merged_into)


def _pick(
    scores: Scores, plan: ReductionPlan, tile_seeds: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens are kept, [tiles, T], int64, ascending, and which scan keeps each, [tiles, T], uint8."""
    if plan.method is ReductionMethod.RANDOM:
        drawn = to_device(random_scores(tile_seeds, plan.grid.tokens), scores.deep.device)
        return _all_by(PickedBy.RANDOM, keep_best(drawn, plan.keep_tokens, valid=valid))
    if plan.method is ReductionMethod.GLOBAL:
        return _all_by(PickedBy.GLOBAL, keep_best(scores.deep, plan.keep_tokens, valid=valid))
    if plan.share is WindowShare.CAPPED:
        local = capped_scan(scores.shallow, plan.grid, plan.window, plan.local_tokens)
    else:
        local = local_scan(scores.shallow, plan.grid, plan.window, plan.local_tokens, valid)
    if plan.method is ReductionMethod.LOCAL:
        # Alone, the local scan gives what windows cannot share equally to the next best of its own scores.
        return _all_by(PickedBy.LOCAL, keep_best(scores.shallow, plan.keep_tokens, first=local, valid=valid))
    kept = keep_best(scores.deep, plan.keep_tokens, first=local, valid=valid)
    return kept, torch.where(local.gather(1, kept), int(PickedBy.LOCAL), int(PickedBy.GLOBAL)).to(torch.uint8)


def _all_by(scan: PickedBy, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return kept, torch.full_like(kept, int(scan), dtype=torch.uint8)


def _keep_all(tokens: torch.Tensor) -> ReducedTiles:
    tiles, count, _ = tokens.shape
    each = torch.arange(count, device=tokens.device).expand(tiles, count)
    return ReducedTiles(tokens, each, torch.full_like(each, int(PickedBy.ALL), dtype=torch.uint8), each)


def _pool(tokens: torch.Tensor, plan: ReductionPlan, valid: torch.Tensor | None) -> ReducedTiles:
    """Means over cells; a cell's place is its first token. Cells that have any other token leave padding out."""
    tiles, count, _ = tokens.shape
    cells = pool_cells(plan.grid, pool_grid(plan.grid, plan.keep_tokens), tokens.device)
    into = cells.expand(tiles, count)
    counted = None if valid is None else _counted(valid, into, plan.keep_tokens)
    places = torch.arange(count, device=tokens.device).expand(tiles, count)
    if counted is not None:
        places = places.masked_fill(~counted, count)
    first = places.new_full((tiles, plan.keep_tokens), count).scatter_reduce_(1, into, places, "amin")
    picked_by = torch.full_like(first, int(PickedBy.POOL), dtype=torch.uint8)
    return ReducedTiles(mean_rows(tokens, into, plan.keep_tokens, counted), first, picked_by, into)


def _counted(valid: torch.Tensor, cells: torch.Tensor, count: int) -> torch.Tensor:
    """Which tokens make up their cell: those that are valid, or all of a cell that has none, [tiles, N], bool."""
    alive = torch.zeros(len(valid), count, dtype=torch.int64, device=valid.device).scatter_add_(1, cells, valid.long()) > 0
    return valid | ~alive.gather(1, cells)
