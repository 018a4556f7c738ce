"""One batched pass on the device: tiles of many requests through the transformer, then each reduced as its request asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, repeat

import torch
from opentelemetry.trace import SpanContext

from encoder_service.reduction.budget import Grid, ReductionPlan
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.vision.base import PreparedImage, VisionModel, tiles_worth
from vscan.visual_tokens import VisualTokens


@dataclass(frozen=True, slots=True)
class Interval:
    """When something happened, in nanoseconds of the wall clock, as spans have it."""

    start_ns: int
    end_ns: int

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(frozen=True, slots=True, eq=False)
class TileJob:
    """One image or video, ready for the device."""

    image: PreparedImage
    plans: tuple[ReductionPlan, ...]  # one for each tile
    tile_seeds: tuple[int, ...]  # one for each tile
    span: SpanContext  # of the request

    @property
    def tiles(self) -> int:
        """Passes of the vision transformer."""
        return len(self._counted())

    @property
    def size(self) -> int:
        """Its size in a batch."""
        return sum(tiles_worth(grid) for grid in self._counted())

    @property
    def least_kept(self) -> int:
        """Tokens that will be left for certain: of a tile with padding it may be fewer than its plan says."""
        valid = self.image.valid or repeat(None)
        return sum(plan.keep_tokens for plan, mask in zip(self.plans, valid, strict=False) if mask is None)

    def _counted(self) -> list[Grid]:
        return list(compress(self.image.grids, self.image.counted or repeat(True)))


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """One image's tokens on the CPU, and what its whole batch took."""

    value: VisualTokens
    vit: Interval
    reduce: Interval
    batch_span: SpanContext | None = None


class DevicePass:
    """Runs batches; called from one thread only, which alone uses the model's tensors.

    Args:
        max_tiles: about how many go through the transformer at a time; None: a whole batch.
    """

    def __init__(self, model: VisionModel, max_tiles: int | None = None) -> None:
        self._model = model
        self._max_tiles = max_tiles

    @torch.inference_mode()
    def __call__(self, jobs: Sequence[TileJob]) -> list[PassResult]:
        """The result of each job, in order."""
        start = time.time_ns()
        seen = self._model.look([job.image for job in jobs], self._max_tiles)
        self._wait_for_device()
        middle = time.time_ns()
        tokens = self._model.project(seen.features)
        skip_padding = self._model.scan.skip_padding
        tiles = iter(_reduced(tokens, seen.scores, jobs, skip_padding=skip_padding, max_tiles=self._max_tiles))
        values = [self._model.assemble(job.image, [next(tiles) for _ in job.plans]) for job in jobs]
        end = time.time_ns()
        return [PassResult(value, Interval(start, middle), Interval(middle, end)) for value in values]

    def _wait_for_device(self) -> None:
        # Kernels run behind the caller's back; without this the transformer's time would be counted to the reduction.
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)


def _reduced(
    tokens: torch.Tensor, scores: Scores, jobs: Sequence[TileJob], *, skip_padding: bool, max_tiles: int | None
) -> list[ReducedTiles]:
    """Each tile's reduction, on the CPU, as a batch of one. Tiles with one plan are reduced together, whoever asked.

    Args:
        tokens, scores: packed, tile after tile, [rows, hidden] and [rows].
    """
    plans = [plan for job in jobs for plan in job.plans]
    valid = [mask for job in jobs for mask in job.image.valid or (None,) * len(job.plans)]
    seeds = torch.tensor([seed for job in jobs for seed in job.tile_seeds], device=tokens.device)
    starts = list(accumulate((plan.grid.tokens for plan in plans), initial=0))
    members: dict[ReductionPlan, list[int]] = {}
    for tile, plan in enumerate(plans):
        members.setdefault(plan, []).append(tile)
    found: dict[int, ReducedTiles] = {}
    for plan, group in _groups(members, max_tiles):
        first_rows = [starts[tile] for tile in group]
        together = reduce_tiles(
            _tiles(tokens, first_rows, plan.grid),
            Scores(_tiles(scores.shallow, first_rows, plan.grid), _tiles(scores.deep, first_rows, plan.grid)),
            plan,
            seeds[torch.tensor(group, device=tokens.device)],
            _masks([valid[tile] for tile in group], plan.grid, tokens.device) if skip_padding else None,
        ).to("cpu")
        found |= {tile: together[row : row + 1] for row, tile in enumerate(group)}
    return [found[tile] for tile in range(len(plans))]


def _groups(members: Mapping[ReductionPlan, list[int]], max_tiles: int | None) -> Iterator[tuple[ReductionPlan, list[int]]]:
    """Tiles of one plan, about `max_tiles` at a time."""
    for plan, tiles in members.items():
        step = len(tiles) if max_tiles is None else max(1, max_tiles // tiles_worth(plan.grid))
        yield from ((plan, tiles[start : start + step]) for start in range(0, len(tiles), step))


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
    return torch.stack([everything if mask is None else mask for mask in valid]).to(device)
