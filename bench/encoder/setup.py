"""One model of random weights in our encoder and in transformers' own form, and images for it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from transformers import CLIPVisionModel
from transformers.models.llava.modeling_llava import LlavaModel

from bench.random_clip import ClipShape, write_checkpoint
from bench.timing import timed
from encoder_service.config import EncoderSettings
from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.device_queue import device_queue
from encoder_service.reduction.budget import ReductionPlan, plan_reduction
from encoder_service.vision.base import PreparedImage, VisionModel
from encoder_service.vision.registry import load_vision
from vscan.checkpoint import Checkpoint
from vscan.cuda_graphs import GraphRecorder
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec

VIT_L = ClipShape(layers=24, hidden=1024, heads=16, language_hidden=4096)
_TOWER_KEYS = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
_seeds = itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """The same weights twice, and how to measure with them."""

    folder: Path  # of the checkpoint
    model: VisionModel
    plain: Any  # LlavaModel without its language model
    shape: ClipShape
    batches: tuple[int, ...]
    rounds: int

    @classmethod
    @contextmanager
    def made(
        cls, shape: ClipShape, *, device: str, dtype: torch.dtype, batches: tuple[int, ...], rounds: int
    ) -> Iterator[Setup]:
        """Writes a checkpoint into a temporary folder and loads it as the service does."""
        with TemporaryDirectory(prefix="bench-encoder-") as name:
            checkpoint = Checkpoint.open(write_checkpoint(Path(name), shape, dtype=dtype))
            model = load_vision(checkpoint, dtype=dtype, device=torch.device(device))
            plain = _plain(checkpoint, model)
            model.pack()
            yield cls(Path(name), model, plain, shape, batches, rounds)

    @property
    def device_pass(self) -> DevicePass:
        """As the pipeline has it by default."""
        run = DevicePass(self.model, EncoderSettings.model_fields["max_batch_tiles"].default)
        run.prepare(self.reduced)
        return run

    @property
    def reduced(self) -> ReductionPlan:
        """The default: 96 of 576 tokens, the others merged into them."""
        return plan_reduction(ReductionSpec().filled_from(DEFAULT_REDUCTION), self.model.grid, self.model.scan.window)

    @property
    def unreduced(self) -> ReductionPlan:
        """All tokens."""
        none = ReductionSpec(method=ReductionMethod.NONE).filled_from(DEFAULT_REDUCTION)
        return plan_reduction(none, self.model.grid, self.model.scan.window)

    def images(self, count: int) -> list[PreparedImage]:
        """So many of noise, other ones with each call, as the pipeline's threads leave them: for a GPU in pinned memory."""
        side, grid = self.shape.image_side_pixels, (self.model.grid,)
        generator = torch.Generator().manual_seed(next(_seeds))
        queue = device_queue(self.model.device, self.model.dtype)
        noise = (torch.randn(1, 3, side, side, generator=generator) for _ in range(count))
        return [queue.staged(PreparedImage(pixels, grid)) for pixels in noise]

    def jobs(self, images: list[PreparedImage], plan: ReductionPlan) -> list[TileJob]:
        """A job for each image."""
        return [TileJob(image, (plan,), (0,), INVALID_SPAN_CONTEXT) for image in images]

    @torch.inference_mode()
    def plain_features(self, images: list[PreparedImage]) -> list[torch.Tensor]:
        """transformers' visual tokens of each image, [N, hidden], on the device."""
        device, dtype = self.model.device, self.model.dtype
        pixels = torch.cat([image.pixels.to(device, dtype, non_blocking=True) for image in images])
        found = self.plain.get_image_features(pixel_values=pixels)
        return list(getattr(found, "pooler_output", found))

    def launched(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """As passes of the service are: on a GPU as one."""
        return GraphRecorder(self.model.device).record(work) if self.model.device.type == "cuda" else work

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds until the device has done it."""

        def done() -> None:
            work()
            self._wait_for_device()

        self._wait_for_device()
        return timed(done)

    def _wait_for_device(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def _plain(checkpoint: Checkpoint, model: VisionModel) -> Any:
    """All layers of the tower, as transformers runs them. Before `model` is packed: its projector is copied."""
    with torch.device("meta"):
        plain = LlavaModel(checkpoint.config)
    plain.vision_tower = checkpoint.load_half(
        CLIPVisionModel,
        checkpoint.config.vision_config,
        key_mapping=_TOWER_KEYS,
        dtype=model.dtype,
        device=model.device,
        attention="sdpa",
    )
    plain.multi_modal_projector = copy.deepcopy(model.modules()["multi_modal_projector"])
    return plain.eval().requires_grad_(False)
