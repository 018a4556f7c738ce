"""One batched pass on the device: tiles of many requests through the transformer, then each reduced as its request asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from opentelemetry.trace import SpanContext

from encoder_service.reduction.budget import ReductionPlan
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.vision.base import VisionModel
from vscan.visual_tokens import Tile, VisualTokens


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
    """One image, ready for the device."""

    pixels: torch.Tensor  # [tiles, channels, height, width], on the CPU
    plans: tuple[ReductionPlan, ...]  # one for each tile
    tile_seeds: tuple[int, ...]  # one for each tile
    span: SpanContext  # of the request

    @property
    def tiles(self) -> int:
        """Its size in a batch."""
        return len(self.plans)


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """One image's tokens on the CPU, and what its whole batch took."""

    value: VisualTokens
    vit: Interval
    reduce: Interval
    batch_span: SpanContext | None = None


class DevicePass:
    """Runs batches; called from one thread only, which alone uses the model's tensors."""

    def __init__(self, model: VisionModel) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, jobs: Sequence[TileJob]) -> list[PassResult]:
        """The result of each job, in order."""
        start = time.time_ns()
        seen = self._model.look(torch.cat([job.pixels for job in jobs]).to(self._model.device))
        self._wait_for_device()
        middle = time.time_ns()
        plans = [plan for job in jobs for plan in job.plans]
        seeds = [seed for job in jobs for seed in job.tile_seeds]
        tiles = iter(_reduced(self._model.project(seen.features), seen.scores, plans, seeds))
        values = [_assembled(job.plans, [next(tiles) for _ in job.plans]) for job in jobs]
        end = time.time_ns()
        return [PassResult(value, Interval(start, middle), Interval(middle, end)) for value in values]

    def _wait_for_device(self) -> None:
        # Kernels run behind the caller's back; without this the transformer's time would be counted to the reduction.
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)


def _reduced(
    tokens: torch.Tensor, scores: Scores, plans: Sequence[ReductionPlan], tile_seeds: Sequence[int]
) -> list[ReducedTiles]:
    """Each tile's reduction, on the CPU, as a batch of one. Tiles with one plan are reduced together, whoever asked."""
    members: dict[ReductionPlan, list[int]] = {}
    for tile, plan in enumerate(plans):
        members.setdefault(plan, []).append(tile)
    seeds = torch.tensor(tile_seeds, device=tokens.device)
    found: dict[int, ReducedTiles] = {}
    for plan, group in members.items():
        chosen = torch.tensor(group, device=tokens.device)
        whole = len(group) == len(plans)
        together = reduce_tiles(
            tokens if whole else tokens[chosen], scores if whole else scores[chosen], plan, seeds[chosen]
        ).to("cpu")
        found |= {tile: together[row : row + 1] for row, tile in enumerate(group)}
    return [found[tile] for tile in range(len(plans))]


def _assembled(plans: Sequence[ReductionPlan], tiles: Sequence[ReducedTiles]) -> VisualTokens:
    """One image's tiles after each other. Indices of later tiles are moved behind those of earlier ones:

    kept of two tiles of 6, T = 2      1 5 | 0 3     →    1 5 6 9
    merged into                  0 0 1 0 1 1 | ...   →    0 0 1 0 1 1 | 2 ...
    """
    kept, merged, first_token, first_row = [], [], 0, 0
    for plan, tile in zip(plans, tiles, strict=True):
        kept.append(tile.kept[0] + first_token)
        if tile.merged_into is not None:
            merged.append(tile.merged_into[0] + first_row)
        first_token += plan.grid.tokens
        first_row += plan.keep_tokens
    return VisualTokens(
        tokens=torch.cat([tile.tokens[0] for tile in tiles]),  # a copy: a view would keep the whole batch in memory
        kept_indices=torch.cat(kept),
        picked_by=torch.cat([tile.picked_by[0] for tile in tiles]),
        merged_into=torch.cat(merged) if len(merged) == len(tiles) else None,
        tiles=tuple(Tile(plan.grid.rows, plan.grid.columns, plan.keep_tokens) for plan in plans),
        unreduced_count=first_token,
    )
