"""Training parts: dropout keeps every item, rates follow the cosine, a stage goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from embedded_model.optim import build_optimizers, rate_factor
from embedded_model.scenes import Split, seeded
from embedded_model.train.__main__ import Journey, _begin_or_go_on
from embedded_model.train.batches import draw_scenes, labels_of
from embedded_model.train.course import Course, Place
from embedded_model.train.dropout import CUT_LAYER, draw_count, draw_cut, draw_kept, keep


@pytest.mark.parametrize("count", [15, 60, 144])
@pytest.mark.parametrize("favour", [0.0, 1.0])
def test_dropout_keeps_the_count_in_order_and_every_item(count: int, favour: float) -> None:
    owner = labels_of(draw_scenes(seeded(41), 12, Split.TRAIN)).owner
    kept = draw_kept(owner, count, favour)
    assert kept.shape == (12, count)
    assert (kept.diff(dim=1) > 0).all()
    for mine, indices in zip(owner, kept, strict=True):
        assert set(mine[indices].tolist()) | {-1} == set(mine.tolist()) | {-1}


def test_favour_keeps_more_of_the_objects() -> None:
    torch.manual_seed(0)
    owner = labels_of(draw_scenes(seeded(42), 50, Split.TRAIN)).owner
    plain, favoured = (owner.gather(1, draw_kept(owner, 40, favour)) >= 0 for favour in (0.0, 1.0))
    assert favoured.float().mean() > 1.2 * plain.float().mean()


@pytest.mark.parametrize(("count", "survivors"), [(15, 8), (60, 20), (144, 48)])
@pytest.mark.parametrize("favour", [0.0, 1.0])
def test_a_cut_keeps_a_third_of_the_kept_and_every_item(count: int, survivors: int, favour: float) -> None:
    owner = labels_of(draw_scenes(seeded(43), 40, Split.TRAIN)).owner
    kept = draw_kept(owner, count, favour)
    cut = draw_cut(owner, kept, favour)
    assert cut.layer == CUT_LAYER == 4
    assert cut.kept.shape == (40, survivors)
    assert (cut.kept.diff(dim=1) > 0).all()
    assert cut.kept.max() < count
    left = owner.gather(1, kept).gather(1, cut.kept)
    for mine, those in zip(owner, left, strict=True):
        assert set(those.tolist()) | {-1} == set(mine.tolist()) | {-1}
    assert (owner >= 6).any()  # letters are among the items


def test_a_cut_chooses_anew() -> None:
    owner = labels_of(draw_scenes(seeded(44), 20, Split.TRAIN)).owner
    kept = draw_kept(owner, 144)
    assert not torch.equal(draw_cut(owner, kept).kept, draw_cut(owner, kept).kept)


def test_batches_keep_all_tokens_as_often_as_planned_and_else_11_percent_or_more() -> None:
    rng = seeded(45)
    counts = [draw_count(rng, 0.25) for _ in range(2000)]
    assert 0.2 < counts.count(144) / len(counts) < 0.3
    assert min(counts) == 15
    assert [draw_count(rng, 1.0) for _ in range(20)] == [144] * 20


def test_few_tokens_are_favoured_by_drawing_their_logarithm_evenly() -> None:
    rng = seeded(45)
    counts = sorted(draw_count(rng, 0.0, favour_few=True) for _ in range(2000))
    assert counts[0] == 15
    assert 44 <= counts[1000] <= 52  # the geometric mean of 15.84 and 144 is 47.8


def test_keep_takes_the_kept_tokens_of_each_picture() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert keep(tokens, torch.tensor([[0, 2], [1, 2]])).tolist() == [[[0, 1], [4, 5]], [[8, 9], [10, 11]]]


def test_rates_rise_then_fall() -> None:
    factors = [rate_factor(step, 100) for step in range(100)]
    top = factors.index(max(factors))
    assert max(factors) == 1.0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] < 0.03


def test_every_parameter_is_optimized_once() -> None:
    module = nn.ModuleDict({"embed": nn.Embedding(5, 4), "inner": nn.Linear(4, 4)})
    optimizers = build_optimizers([(module, 1.0)])
    chosen = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, chosen)) == sorted(map(id, module.parameters()))
    muon = next(o for o in optimizers if isinstance(o, torch.optim.Muon))
    assert [p for g in muon.param_groups for p in g["params"]] == [module["inner"].weight]


def run_course(out: Path, until: int, steps: int = 6) -> nn.Module:
    """Trains a small matrix for `until` of `steps`, then stops as if it had been ended."""
    out.mkdir(exist_ok=True)
    place = Place(out, seed=0, device=torch.device("cpu"))
    place.rng(0)
    module = nn.Linear(4, 4)
    course = Course(place, "small", steps, module, [(module, 1.0)])
    for step in course.remaining():
        if step == until:
            course.save()
            break
        place.rng(1, step)
        course.update(module(torch.randn(3, 4)).square().mean(), {})
    return module


def test_a_stopped_course_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    run_course(tmp_path / "broken", until=3)
    resumed = run_course(tmp_path / "broken", until=99)
    unbroken = run_course(tmp_path / "whole", until=99)
    torch.testing.assert_close(resumed.weight, unbroken.weight)
    torch.testing.assert_close(resumed.bias, unbroken.bias)


def test_a_run_is_not_gone_on_with_under_another_seed_or_scale(tmp_path: Path) -> None:
    begun = Journey(tmp_path / "run", seed=1, device="cpu", compiled=False, scale=1.0)
    for _ in range(2):
        _begin_or_go_on(begun)
    for other in (replace(begun, seed=2), replace(begun, scale=0.5)):
        with pytest.raises(SystemExit, match=r"--seed 1 --scale 1\.0"):
            _begin_or_go_on(other)
