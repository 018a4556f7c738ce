"""One pass for many jobs: each gets its own tokens, in memory of their own."""

from collections.abc import Sequence

import pytest
import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from encoder_service.device_pass import DevicePass, TileJob
from encoder_service.reduction.budget import Grid, ReductionPlan, plan_reduction
from encoder_service.reduction.reduce import Scores
from encoder_service.vision.base import PreparedImage, ScanSettings, Seen, VisionModel
from tests.support.vision import pixels, prepared, shared_model
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec, TokensPerTile
from vscan.visual_tokens import PickedBy, Tile, VisualTokens


def plan(
    model: VisionModel, keep: int, method: ReductionMethod = ReductionMethod.VSCAN, *, merge: bool = True
) -> ReductionPlan:
    spec = ReductionSpec(method=method, budget=TokensPerTile(keep), merge=merge).filled_from(DEFAULT_REDUCTION)
    return plan_reduction(spec, model.grid, model.scan.window)


def job(tiles: torch.Tensor, *plans: ReductionPlan) -> TileJob:
    return TileJob(prepared(shared_model(), tiles), plans, tuple(range(len(plans))), INVALID_SPAN_CONTEXT)


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


class Rows(VisionModel):
    """A family whose tiles differ in size: its pixels are the packed rows, and a row's sum is its score."""

    grid, hidden_size, dtype, device = Grid(6, 6), 4, torch.float32, torch.device("cpu")

    def __init__(self, *, skip_padding: bool = True) -> None:
        self.scan = ScanSettings(shallow_layer=0, deep_layer=1, window=3, skip_padding=skip_padding)

    def look(self, images: Sequence[PreparedImage], max_tiles: int | None = None) -> Seen:
        rows = torch.cat([image.pixels for image in images])
        return Seen(rows, Scores(rows.sum(1), -rows.sum(1)))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return 2 * features

    preprocess = observe = pictures = modules = configuration = None  # type: ignore[assignment]


def rows_job(seed: int, grids: Sequence[Grid], valid: tuple[torch.Tensor | None, ...] | None = None) -> TileJob:
    count = sum(grid.tokens for grid in grids)
    rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    spec = ReductionSpec(budget=TokensPerTile(5)).filled_from(DEFAULT_REDUCTION)
    plans = tuple(plan_reduction(spec, grid, 3) for grid in grids)
    return TileJob(PreparedImage(rows, tuple(grids), valid), plans, tuple(range(len(grids))), INVALID_SPAN_CONTEXT)


def test_tiles_of_one_batch_may_differ_in_size() -> None:
    run = DevicePass(Rows())
    jobs = [rows_job(1, [Grid(3, 4), Grid(6, 6)]), rows_job(2, [Grid(6, 6)]), rows_job(3, [Grid(1, 9), Grid(3, 4), Grid(3, 4)])]
    for one, result in zip(jobs, run(jobs), strict=True):
        (alone,) = run([one])
        grids = one.image.grids
        assert result.value.tiles == tuple(Tile(grid.rows, grid.columns, 5) for grid in grids)
        assert torch.equal(result.value.kept_indices, alone.value.kept_indices)
        assert torch.equal(result.value.tokens, alone.value.tokens)
        first = 0
        for tile, grid in enumerate(grids):
            kept = result.value.kept_indices[5 * tile : 5 * tile + 5]
            assert first <= int(kept.min()) <= int(kept.max()) < first + grid.tokens
            first += grid.tokens


def test_padding_is_left_out_unless_the_deployment_says_otherwise() -> None:
    grids = [Grid(6, 6), Grid(6, 6)]
    upper = (torch.arange(36) < 18, None)
    with_padding, without = rows_job(4, grids, upper), rows_job(4, grids)
    (skipped, plain) = DevicePass(Rows())([with_padding, without])
    (released,) = DevicePass(Rows(skip_padding=False))([with_padding])
    assert int(skipped.value.kept_indices[:5].max()) < 18 <= int(plain.value.kept_indices[:5].max())
    assert torch.equal(skipped.value.tokens[5:], plain.value.tokens[5:]), "the other tile has no padding"
    assert torch.equal(released.value.tokens, plain.value.tokens)


def test_an_image_that_cannot_be_staged_goes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model()
    run = DevicePass(model)

    def refuse(image: PreparedImage) -> PreparedImage:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(run._queue, "staged", refuse)
    image = prepared(model, pixels(model, 1))
    assert run.staged(image) is image
