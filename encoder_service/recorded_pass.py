"""Passes over tiles of one size as CUDA graphs: launched as two pieces of work, instead of a thousand kernels one by one.

    pixels   ─▶ vision transformer ─▶ features, scores ─▶ projector, scans, merging ─▶ kept tokens
    fixed       one graph             fixed               another, of one plan         copied out

All numbers of tiles share the fixed tensors, each using the first of their rows. A batch with another plan, or with padding, is
reduced from the fixed features kernel by kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from encoder_service.reduction.budget import ReductionPlan
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.reduction.scan import windows_of
from encoder_service.tile_groups import TileGroup, TileTask
from encoder_service.vision.base import PreparedImage, Seen, VisionModel
from vscan.cuda_graphs import GraphRecorder
from vscan.specs import ReductionMethod

log = logging.getLogger(__name__)

# Recording takes time and memory for each number of tiles, and the more of them go together, the less launching weighs.
_MOST_RECORDED = 16
# Makes work that is launched as one of what is launched piece by piece.
Record = Callable[[Callable[[], Any]], Callable[[], Any]]


@dataclass(frozen=True, slots=True, eq=False)
class FixedTensors:
    """What all recorded passes read and write, for as many tiles as the largest has."""

    pixels: torch.Tensor  # [tiles, …]
    seen: Seen  # [rows, …]

    def of(self, tiles: int) -> FixedTensors:
        """Its part for the first tiles."""
        rows = len(self.seen.features) // len(self.pixels) * tiles
        scores = Scores(self.seen.scores.shallow[:rows], self.seen.scores.deep[:rows])
        return FixedTensors(self.pixels[:tiles], Seen(self.seen.features[:rows], scores))


class RecordedPass:
    """A pass over so many tiles as `tensors` has place for, reduced as `plan` says. Both are run by one thread, in turn."""

    def __init__(self, model: VisionModel, plan: ReductionPlan, tensors: FixedTensors, record: Record) -> None:
        self._model = model
        self._plan = plan
        self._tensors = tensors
        # A recording reads tensors where they lay: these must not be laid out anew elsewhere.
        self._windows = windows_of(model.grid, plan.window, model.device)
        self._look = record(self._looked)
        # A draw differs from image to image.
        self._reduce = record(self._reduced) if plan.method is not ReductionMethod.RANDOM else None

    def seen(self, images: Sequence[PreparedImage]) -> Seen:
        """What the transformer makes of them; valid until the next pass."""
        torch.cat([image.pixels for image in images], out=self._tensors.pixels)
        self._look()
        return self._tensors.seen

    def reduced(self, tasks: Sequence[TileTask]) -> TileGroup | None:
        """What became of the tiles that were seen last; None where another plan is asked for."""
        if self._reduce is None or any(task.valid is not None or task.plan != self._plan for task in tasks):
            return None
        tiles: ReducedTiles = self._reduce()
        return TileGroup(range(len(tasks)), tiles.clone())

    def _looked(self) -> None:
        count, fixed = len(self._tensors.pixels), self._tensors.seen
        seen = self._model.look([PreparedImage(self._tensors.pixels, (self._model.grid,) * count)])
        fixed.features.copy_(seen.features)
        fixed.scores.shallow.copy_(seen.scores.shallow)
        fixed.scores.deep.copy_(seen.scores.deep)

    def _reduced(self) -> ReducedTiles:
        count, seen = len(self._tensors.pixels), self._tensors.seen
        tokens = self._model.project(seen.features)
        scores = Scores(seen.scores.shallow.view(count, -1), seen.scores.deep.view(count, -1))
        return reduce_tiles(tokens.view(count, -1, tokens.shape[-1]), scores, self._plan, torch.zeros(count, dtype=torch.int64))


class RecordedPasses:
    """Recorded passes, by number of tiles; none at all where the model's tiles differ or nothing can be recorded."""

    def __init__(self, model: VisionModel) -> None:
        self._model = model
        self._passes: dict[int, RecordedPass] = {}

    @torch.inference_mode()
    def prepare(self, plan: ReductionPlan, max_tiles: int, record: Record | None = None) -> None:
        """Records passes of 1 to `max_tiles` tiles. Before anything is served.

        What cannot be recorded is run as other passes are. Raises only if the device is gone.
        """
        if record is None and self._model.device.type == "cuda":
            record = GraphRecorder(self._model.device).record
        if record is None or self._model.tile_pixels is None:
            return
        try:
            self._record(plan, min(max_tiles, _MOST_RECORDED), record)
        except Exception:
            log.warning("passes cannot be recorded: they are launched kernel by kernel", exc_info=True)
            self._passes.clear()
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)  # raises if it is gone
            torch.cuda.empty_cache()  # of what ran before it was recorded

    def of(self, images: Sequence[PreparedImage]) -> RecordedPass | None:
        """The one for all tiles of these images; None where there is none."""
        grids = [grid for image in images for grid in image.grids]
        if any(image.frames is not None for image in images) or any(grid != self._model.grid for grid in grids):
            return None
        return self._passes.get(len(grids))

    def _record(self, plan: ReductionPlan, most: int, record: Record) -> None:
        model = self._model
        assert model.tile_pixels is not None
        pixels = torch.zeros(most, *model.tile_pixels, dtype=model.dtype, device=model.device)
        seen = model.look([PreparedImage(pixels, (model.grid,) * most)])
        tensors = FixedTensors(pixels, seen)
        for count in range(most, 0, -1):  # the largest first: the others find room in its memory
            self._passes[count] = RecordedPass(model, plan, tensors.of(count), record)
