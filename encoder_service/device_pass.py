"""One batched pass on the device: tiles of many requests through the transformer, then each reduced as its request asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import torch
from opentelemetry.trace import SpanContext

from encoder_service.device_queue import Mark, device_queue
from encoder_service.recorded_pass import Record, RecordedPass, RecordedPasses
from encoder_service.reduction.budget import ReductionPlan
from encoder_service.tile_groups import TileGroup, TileTask, apart, reduce_groups
from encoder_service.vision.base import PreparedImage, Seen, VisionModel, tiles_worth
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
        return len(self.image.looked_at)

    @property
    def size(self) -> int:
        """Its size in a batch."""
        return sum(tiles_worth(grid) for grid in self.image.looked_at)

    @property
    def least_kept(self) -> int:
        """Tokens that will be left for certain: of a tile with padding it may be fewer than its plan says."""
        valid = self.image.valid or repeat(None)
        return sum(plan.keep_tokens for plan, mask in zip(self.plans, valid, strict=False) if mask is None)

    def tasks(self, *, skip_padding: bool) -> list[TileTask]:
        """What is to become of each tile."""
        masks = self.image.valid if skip_padding and self.image.valid else (None,) * len(self.plans)
        return [TileTask(*of_tile) for of_tile in zip(self.plans, self.tile_seeds, masks, strict=True)]


class DeviceLost(BaseException):
    """The device does not come back within this process: no pass will succeed any more."""


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
        self._queue = device_queue(model.device, model.dtype)
        self._recorded = RecordedPasses(model)

    def prepare(self, plan: ReductionPlan, record: Record | None = None) -> None:
        """Records, on a GPU, passes over tiles of one size that are reduced so. Before anything is served.

        Raises DeviceLost.
        """
        with self._lost_if_gone():
            self._recorded.prepare(plan, self._max_tiles or 1, record)

    def staged(self, image: PreparedImage) -> PreparedImage:
        """The image as it is best uploaded. Safe to call from several threads."""
        try:
            return self._queue.staged(image)
        except torch.AcceleratorError:
            return image  # no memory to be pinned, or a lost device: that is for a pass to find, which tells everybody

    def __call__(self, jobs: Sequence[TileJob]) -> list[PassResult]:
        """The result of each job, in order."""
        return self.begin(jobs)()

    @torch.inference_mode()
    def begin(self, jobs: Sequence[TileJob]) -> Callable[[], list[PassResult]]:
        """Gives the device its work. What is returned waits for it, in any thread, and makes the result of each job, in order.

        Raises DeviceLost, as what is returned does.
        """
        with self._lost_if_gone():
            images = self._queue.uploaded([job.image for job in jobs])
            recorded = self._recorded.of(images)
            begun = self._queue.mark()
            seen = recorded.seen(images) if recorded else self._model.look(images, self._max_tiles)
            between = self._queue.mark()
            groups = self._reduced(seen, self._tasks(jobs), recorded)
            tiles, copied = self._queue.downloaded([group.reduced for group in groups])
        moved = [TileGroup(group.numbers, some) for group, some in zip(groups, tiles, strict=True)]
        return partial(self._results, jobs, moved, (begun, between, copied))

    @torch.inference_mode()
    def _results(self, jobs: Sequence[TileJob], groups: Sequence[TileGroup], marks: Sequence[Mark]) -> list[PassResult]:
        with self._lost_if_gone():
            begun, between, copied = self._queue.times_ns(marks)
        tiles = iter(apart(groups))
        values = [self._model.assemble(job.image, [next(tiles) for _ in job.plans]) for job in jobs]
        return [PassResult(value, Interval(begun, between), Interval(between, copied)) for value in values]

    def _reduced(self, seen: Seen, tasks: Sequence[TileTask], recorded: RecordedPass | None) -> list[TileGroup]:
        together = recorded.reduced(tasks) if recorded else None
        if together is not None:
            return [together]
        return reduce_groups(self._model.project(seen.features), seen.scores, tasks, self._max_tiles)

    def _tasks(self, jobs: Sequence[TileJob]) -> list[TileTask]:
        return [task for job in jobs for task in job.tasks(skip_padding=self._model.scan.skip_padding)]

    @contextmanager
    def _lost_if_gone(self) -> Iterator[None]:
        """torch has one type for faults of a device, of which it survives few."""
        try:
            yield
        except torch.AcceleratorError as error:
            if not self._queue.is_gone():
                raise
            raise DeviceLost(str(error)) from error
