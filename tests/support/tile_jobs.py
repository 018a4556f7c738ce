"""Prepared images and videos as jobs of a device pass."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import INVALID_SPAN_CONTEXT

from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.reduction.budget import plan_tiles
from encoder_service.vision.base import PreparedImage, VisionModel
from vscan.specs import DEFAULT_REDUCTION, Budget, ReductionMethod, ReductionSpec
from vscan.visual_tokens import SampledFrames, VisualTokens


def reduced(
    model: VisionModel, prepared: Sequence[PreparedImage], budget: Budget | None = None, *, max_tiles: int | None = None
) -> list[VisualTokens]:
    """All in one pass; without a budget nothing is reduced."""
    method = ReductionMethod.VSCAN if budget else ReductionMethod.NONE
    spec = ReductionSpec(method=method, budget=budget).filled_from(DEFAULT_REDUCTION)
    jobs = []
    for image in prepared:
        valid = image.valid if model.scan.skip_padding else None
        plans = plan_tiles(spec, image.grids, model.scan.window, model.scan.share, counted=image.counted, valid=valid)
        jobs.append(TileJob(image, plans, (0,) * len(plans), INVALID_SPAN_CONTEXT))
    return [result.value for result in DevicePass(model, max_tiles)(jobs)]


def one_a_second(count: int) -> SampledFrames:
    """So many frames."""
    return SampledFrames(tuple(map(float, range(count))), float(count))
