"""The tiles of a batch, reduced in groups: those with one plan together, whoever asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from encoder_service.reduction.budget import Grid, ReductionPlan
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.vision.base import tiles_worth
from vscan.transfer import to_device


@dataclass(frozen=True, slots=True, eq=False)
class TileTask:
    """What is to become of a tile."""

    plan: ReductionPlan
    seed: int
    valid: torch.Tensor | None = None  # which of its tokens are not padding, [N], bool; None: all


@dataclass(frozen=True, slots=True, eq=False)
class TileGroup:
    """Tiles with one plan: which ones of the batch, and what became of them."""

    numbers: Sequence[int]
    reduced: ReducedTiles


def reduce_groups(
    tokens: torch.Tensor, scores: Scores, tasks: Sequence[TileTask], max_tiles: int | None = None
) -> list[TileGroup]:
    """Reduces all tiles of a batch, about `max_tiles` at a time.

    Args:
        tokens, scores: packed, tile after tile, [rows, hidden] and [rows].
    """
    starts = list(accumulate((task.plan.grid.tokens for task in tasks), initial=0))
    groups = []
    for plan, numbers in _by_plan(tasks, max_tiles):
        first_rows = [starts[number] for number in numbers]
        reduced = reduce_tiles(
            _tiles(tokens, first_rows, plan.grid),
            Scores(_tiles(scores.shallow, first_rows, plan.grid), _tiles(scores.deep, first_rows, plan.grid)),
            plan,
            torch.tensor([tasks[number].seed for number in numbers]),
            _masks([tasks[number].valid for number in numbers], plan.grid, tokens.device),
        )
        groups.append(TileGroup(numbers, reduced))
    return groups


def apart(groups: Sequence[TileGroup]) -> list[ReducedTiles]:
    """Each tile of the groups as a batch of one, in their order in the batch."""
    found = {number: group.reduced[row : row + 1] for group in groups for row, number in enumerate(group.numbers)}
    return [found[number] for number in range(len(found))]


def _by_plan(tasks: Sequence[TileTask], max_tiles: int | None) -> Iterator[tuple[ReductionPlan, list[int]]]:
    members: dict[ReductionPlan, list[int]] = {}
    for number, task in enumerate(tasks):
        members.setdefault(task.plan, []).append(number)
    for plan, numbers in members.items():
        step = len(numbers) if max_tiles is None else max(1, max_tiles // tiles_worth(plan.grid))
        yield from ((plan, numbers[start : start + step]) for start in range(0, len(numbers), step))


def _tiles(rows: torch.Tensor, starts: Sequence[int], grid: Grid) -> torch.Tensor:
    """The tiles that start at these packed rows, [tiles, N, …]; a view where they follow each other."""
    count = grid.tokens
    if starts[-1] - starts[0] == (len(starts) - 1) * count:
        return rows[starts[0] : starts[-1] + count].view(len(starts), count, *rows.shape[1:])
    return torch.stack([rows[start : start + count] for start in starts])


def _masks(valid: Sequence[torch.Tensor | None], grid: Grid, device: torch.device) -> torch.Tensor | None:
    """[tiles, N], bool; None where no tile has padding."""
    if all(mask is None for mask in valid):
        return None
    everything = torch.ones(grid.tokens, dtype=torch.bool)
    return to_device(torch.stack([everything if mask is None else mask for mask in valid]), device)
