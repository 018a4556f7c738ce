"""One pass for many jobs: each gets its own tokens, in memory of their own."""

import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.reduction.budget import ReductionPlan, plan_reduction
from encoder_service.vision.base import VisionModel
from tests.support.vision import pixels, shared_model
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec, TokensPerTile
from vscan.visual_tokens import PickedBy, Tile, VisualTokens


def plan(
    model: VisionModel, keep: int, method: ReductionMethod = ReductionMethod.VSCAN, *, merge: bool = True
) -> ReductionPlan:
    spec = ReductionSpec(method=method, budget=TokensPerTile(keep), merge=merge).filled_from(DEFAULT_REDUCTION)
    return plan_reduction(spec, model.grid, model.scan.window)


def job(tiles: torch.Tensor, *plans: ReductionPlan) -> TileJob:
    return TileJob(tiles, plans, tuple(range(len(plans))), INVALID_SPAN_CONTEXT)


def test_jobs_with_different_plans_share_a_pass() -> None:
    model = shared_model()
    run = DevicePass(model)
    plans = [plan(model, 20), plan(model, 30), plan(model, 20, merge=False), plan(model, 20)]
    plans.append(plan(model, 20, ReductionMethod.RANDOM))
    jobs = [job(pixels(model, 1, seed), chosen) for seed, chosen in enumerate(plans)]
    together = run(jobs)
    for one, result in zip(jobs, together, strict=True):
        (alone,) = run([one])
        assert torch.equal(result.value.kept_indices, alone.value.kept_indices)
        torch.testing.assert_close(result.value.tokens, alone.value.tokens, rtol=0, atol=1e-5)
        assert (result.value.merged_into is None) == (alone.value.merged_into is None)
        assert result.vit.ms > 0
        assert result.vit.end_ns == result.reduce.start_ns <= result.reduce.end_ns
    assert together[2].value.merged_into is None


def test_an_image_of_several_tiles_is_one_value() -> None:
    model = shared_model()
    run = DevicePass(model)
    tiles = pixels(model, 3)
    chosen = plan(model, 40)
    (whole,) = run([job(tiles, chosen, chosen, chosen)])
    value: VisualTokens = whole.value
    assert value.tiles == (Tile(24, 24, 40),) * 3
    assert (value.kept_count, value.unreduced_count) == (120, 3 * 576)
    for tile in range(3):
        (one,) = run([job(tiles[tile : tile + 1], chosen)])
        rows = slice(40 * tile, 40 * tile + 40)
        assert torch.equal(value.kept_indices[rows], one.value.kept_indices + 576 * tile)
        torch.testing.assert_close(value.tokens[rows], one.value.tokens, rtol=0, atol=1e-5)
        assert value.merged_into is not None
        assert one.value.merged_into is not None
        assert torch.equal(value.merged_into[576 * tile : 576 * (tile + 1)], one.value.merged_into + 40 * tile)
    assert set(value.picked_by.tolist()) == {PickedBy.LOCAL, PickedBy.GLOBAL}


def test_a_value_holds_no_memory_of_its_batch() -> None:
    model = shared_model()
    results = DevicePass(model)([job(pixels(model, 1, seed), plan(model, 576)) for seed in range(3)])
    for result in results:
        tokens = result.value.tokens
        assert tokens.untyped_storage().nbytes() == tokens.numel() * tokens.element_size()
