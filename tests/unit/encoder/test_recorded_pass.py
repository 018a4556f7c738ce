"""Passes on fixed tensors give what other passes give. On a CPU nothing is recorded: each piece of work runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from encoder_service.device_pass import DevicePass, PassResult, TileJob
from encoder_service.reduction.budget import plan_tiles
from tests.support.vision import pixels, prepared, shared_model
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec, TokensPerTile
from vscan.visual_tokens import SampledFrames

MOST = 3
USUAL = ReductionSpec(budget=TokensPerTile(40)).filled_from(DEFAULT_REDUCTION)


class Recorder:
    """Counts the pieces of work, and how often they are run."""

    def __init__(self) -> None:
        self.recorded = self.runs = 0

    def __call__(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.recorded += 1
        work()

        def run() -> Any:
            self.runs += 1
            return work()

        return run


def recording(spec: ReductionSpec = USUAL) -> tuple[DevicePass, Recorder]:
    model, recorder = shared_model(), Recorder()
    run = DevicePass(model, MOST)
    (plan,) = plan_tiles(spec, (model.grid,), model.scan.window, model.scan.share)
    run.prepare(plan, recorder)
    return run, recorder


def job(tiles: int, spec: ReductionSpec = USUAL, seed: int = 0) -> TileJob:
    model = shared_model()
    image = prepared(model, pixels(model, tiles, seed))
    plans = plan_tiles(spec, image.grids, model.scan.window, model.scan.share)
    return TileJob(image, plans, tuple(range(tiles)), INVALID_SPAN_CONTEXT)


def assert_same(found: Sequence[PassResult], expected: Sequence[PassResult]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.value.kept_indices, other.value.kept_indices)
        assert torch.equal(one.value.picked_by, other.value.picked_by)
        assert one.value.tiles == other.value.tiles
        torch.testing.assert_close(one.value.tokens, other.value.tokens, rtol=0, atol=1e-5)


def test_a_usual_batch_is_two_pieces_of_work() -> None:
    run, recorder = recording()
    assert recorder.recorded == 2 * MOST
    jobs = [job(1, seed=1), job(2, seed=2)]
    assert_same(run(jobs), DevicePass(shared_model())(jobs))
    assert recorder.runs == 2


def test_a_result_stays_as_it_is_when_the_next_batch_runs() -> None:
    run, _ = recording()
    first, second = [job(2, seed=3)], [job(2, seed=4)]
    endings = [run.begin(first), run.begin(second)]
    expected = DevicePass(shared_model())
    assert_same(endings[0](), expected(first))
    assert_same(endings[1](), expected(second))


@pytest.mark.parametrize(
    "spec",
    [
        ReductionSpec(budget=TokensPerTile(30)),
        ReductionSpec(method=ReductionMethod.NONE),
        ReductionSpec(method=ReductionMethod.RANDOM, seed=5, budget=TokensPerTile(40)),
    ],
    ids=["another budget", "no reduction", "drawn"],
)
def test_another_plan_is_reduced_from_the_same_features(spec: ReductionSpec) -> None:
    run, recorder = recording()
    jobs = [job(1, seed=6), job(1, spec.filled_from(DEFAULT_REDUCTION), seed=7)]
    assert_same(run(jobs), DevicePass(shared_model())(jobs))
    assert recorder.runs == 1


def test_padding_is_reduced_from_the_same_features() -> None:
    run, recorder = recording()
    usual = job(1, seed=8)
    tokens = shared_model().grid.tokens
    padded = replace(usual, image=replace(usual.image, valid=(torch.arange(tokens) < tokens // 2,)))
    assert_same(run([padded]), DevicePass(shared_model())([padded]))
    assert recorder.runs == 1


def test_a_draw_is_never_recorded() -> None:
    spec = ReductionSpec(method=ReductionMethod.RANDOM, budget=TokensPerTile(40)).filled_from(DEFAULT_REDUCTION)
    run, recorder = recording(spec)
    assert recorder.recorded == MOST
    jobs = [job(1, spec, seed=9)]
    assert_same(run(jobs), DevicePass(shared_model())(jobs))


def test_what_was_not_recorded_runs_all_the_same() -> None:
    run, recorder = recording()
    large = job(MOST + 1)
    frames = replace(job(1), image=replace(job(1).image, frames=SampledFrames((0.0,), 1.0)))
    for jobs in ([large], [frames]):
        assert_same(run(jobs), DevicePass(shared_model())(jobs))
    assert recorder.runs == 0


def test_a_pass_that_cannot_be_recorded_is_launched_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(work: Callable[[], Any]) -> Callable[[], Any]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = shared_model()
    run = DevicePass(model, MOST)
    run.prepare(job(1).plans[0], refuse)
    assert "cannot be recorded" in caplog.text
    jobs = [job(2)]
    assert_same(run(jobs), DevicePass(model)(jobs))
