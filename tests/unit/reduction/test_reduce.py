"""Stage 1 as a whole: budgets to the token, every method, batched as alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_service.reduction.budget import Grid, plan_reduction
from encoder_service.reduction.controls import tile_seed
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from tests.unit.reduction import reference
from vscan.errors import InvalidArgument
from vscan.specs import DEFAULT_REDUCTION, Ratio, ReductionMethod, ReductionSpec, TargetAverage, TokensPerTile
from vscan.visual_tokens import PickedBy

CHOOSING = [ReductionMethod.VSCAN, ReductionMethod.GLOBAL, ReductionMethod.LOCAL, ReductionMethod.RANDOM]
grids = st.builds(Grid, st.integers(1, 8), st.integers(1, 8))


def spec(method: ReductionMethod, keep: int, *, merge: bool = True, local_share: float = 0.5, seed: int = 0) -> ReductionSpec:
    asked = ReductionSpec(method=method, budget=TokensPerTile(keep), merge=merge, local_share=local_share, seed=seed)
    return asked.filled_from(DEFAULT_REDUCTION)


def draw(seed: int, tiles: int, grid: Grid, hidden: int = 6) -> tuple[torch.Tensor, Scores]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(tiles, grid.tokens, hidden, generator=generator, dtype=torch.float64)
    ties = torch.randint(0, 4, (2, tiles, grid.tokens), generator=generator).float() / 4
    return tokens, Scores(ties[0], ties[1])


def reduced(seed: int, tiles: int, grid: Grid, asked: ReductionSpec, window: int = 3) -> ReducedTiles:
    tokens, scores = draw(seed, tiles, grid)
    return reduce_tiles(tokens, scores, plan_reduction(asked, grid, window), torch.arange(tiles))


@given(grid=grids, window=st.integers(1, 4), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_budget_is_honoured_exactly(grid: Grid, window: int, seed: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, grid.tokens))
    method = data.draw(st.sampled_from(CHOOSING))
    share = data.draw(st.floats(0, 1))
    result = reduced(seed, 2, grid, spec(method, keep, local_share=share), window)
    assert result.kept.shape == (2, keep)
    assert result.tokens.shape[:2] == (2, keep)
    assert (result.kept.diff(dim=1) > 0).all(), "kept indices ascend, so none is kept twice"
    assert 0 <= int(result.kept.min()) <= int(result.kept.max()) < grid.tokens


@given(grid=grids, window=st.integers(1, 4), share=st.floats(0, 1), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_vscan_is_the_reference(grid: Grid, window: int, share: float, seed: int, data: st.DataObject) -> None:
    if grid.tokens < 2:
        return
    keep = data.draw(st.integers(1, grid.tokens - 1))
    tokens, scores = draw(seed, 2, grid)
    plan = plan_reduction(spec(ReductionMethod.VSCAN, keep, local_share=share), grid, window)
    result = reduce_tiles(tokens, scores, plan, torch.zeros(2, dtype=torch.int64))
    assert result.merged_into is not None
    for tile in range(2):
        shallow, deep = scores.shallow[tile].tolist(), scores.deep[tile].tolist()
        near, far = reference.vscan(shallow, deep, grid.rows, grid.columns, window, keep, share)
        kept = result.kept[tile].tolist()
        assert kept == sorted(near | far)
        scans = dict(zip(kept, result.picked_by[tile].tolist(), strict=True))
        assert {token for token, scan in scans.items() if scan == PickedBy.LOCAL} == near
        assert {token for token, scan in scans.items() if scan == PickedBy.GLOBAL} == far
        rows, into = reference.merge(tokens[tile].tolist(), kept)
        assert result.merged_into[tile].tolist() == into
        torch.testing.assert_close(result.tokens[tile], torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize("method", [*CHOOSING, ReductionMethod.POOL])
def test_merging_loses_nothing(method: ReductionMethod) -> None:
    grid = Grid(5, 7)
    tokens, _ = draw(3, 2, grid)
    result = reduced(3, 2, grid, spec(method, 11))
    assert result.merged_into is not None
    members = torch.nn.functional.one_hot(result.merged_into, result.tokens.shape[1]).sum(1)
    assert members.sum(1).tolist() == [grid.tokens] * 2
    torch.testing.assert_close((result.tokens * members[:, :, None]).sum(1), tokens.sum(1))


@pytest.mark.parametrize("method", CHOOSING)
def test_without_merging_kept_tokens_stay_as_they_are(method: ReductionMethod) -> None:
    grid = Grid(5, 7)
    tokens, _ = draw(4, 2, grid)
    result = reduced(4, 2, grid, spec(method, 11, merge=False))
    assert result.merged_into is None
    for tile in range(2):
        assert torch.equal(result.tokens[tile], tokens[tile, result.kept[tile]])


@pytest.mark.parametrize("method", list(ReductionMethod))
@pytest.mark.parametrize("merge", [True, False])
def test_keeping_all_is_no_reduction(method: ReductionMethod, merge: bool) -> None:
    grid = Grid(4, 5)
    tokens, _ = draw(5, 2, grid)
    result = reduced(5, 2, grid, spec(method, 20, merge=merge))
    assert torch.equal(result.tokens, tokens)
    assert result.kept.tolist() == [list(range(20))] * 2
    assert result.merged_into is not None
    assert torch.equal(result.merged_into, result.kept)
    assert set(result.picked_by.flatten().tolist()) == {PickedBy.ALL}


def test_none_ignores_the_budget() -> None:
    assert plan_reduction(spec(ReductionMethod.NONE, 3), Grid(4, 5), 2).keep_tokens == 20


def test_the_local_scan_alone_gives_the_remainder_to_the_next_best() -> None:
    # Four windows and a budget of 5: the best of each (0, 2, 8, 15), then the best of all others (1).
    shallow = torch.tensor([[9, 8, 3, 2, 7, 6, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2]]).float()
    plan = plan_reduction(spec(ReductionMethod.LOCAL, 5), Grid(4, 4), 2)
    result = reduce_tiles(torch.randn(1, 16, 2), Scores(shallow, shallow), plan, torch.zeros(1, dtype=torch.int64))
    assert result.kept.tolist() == [[0, 1, 2, 8, 15]]
    assert set(result.picked_by.flatten().tolist()) == {PickedBy.LOCAL}


@pytest.mark.parametrize(("keep", "local"), [(96, 48), (100, 48), (192, 96), (31, 0), (575, 272)])
def test_what_windows_cannot_share_equally_goes_to_the_global_scan(keep: int, local: int) -> None:
    # 16 windows: of 100 tokens the local scan may take 50, three a window are 48.
    result = reduced(9, 1, Grid(24, 24), spec(ReductionMethod.VSCAN, keep), window=6)
    scans = torch.bincount(result.picked_by.flatten().to(torch.int64), minlength=3)
    assert (int(scans[PickedBy.LOCAL]), int(scans[PickedBy.GLOBAL])) == (local, keep - local)


def test_the_global_scan_reads_deep_scores_only() -> None:
    grid = Grid(3, 3)
    deep = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8]]).float()
    plan = plan_reduction(spec(ReductionMethod.GLOBAL, 3), grid, 1)
    result = reduce_tiles(torch.randn(1, 9, 2), Scores(-deep, deep), plan, torch.zeros(1, dtype=torch.int64))
    assert result.kept.tolist() == [[6, 7, 8]]


@pytest.mark.parametrize("method", list(ReductionMethod))
def test_a_batch_equals_its_tiles_alone(method: ReductionMethod) -> None:
    grid = Grid(6, 5)
    tokens, scores = draw(6, 4, grid)
    plan = plan_reduction(spec(method, 13), grid, 2)
    seeds = torch.tensor([tile_seed(7, bytes([tile]) * 32, 0) for tile in range(4)])
    together = reduce_tiles(tokens, scores, plan, seeds)
    for tile in range(4):
        one = torch.tensor([tile])
        alone = reduce_tiles(tokens[one], Scores(scores.shallow[one], scores.deep[one]), plan, seeds[one])
        assert torch.equal(together.kept[one], alone.kept)
        assert torch.equal(together.picked_by[one], alone.picked_by)
        torch.testing.assert_close(together.tokens[one], alone.tokens)


def test_random_draws_are_uniform_and_follow_the_seed() -> None:
    grid, keep, draws = Grid(4, 5), 5, 4000
    seeds = torch.tensor([tile_seed(seed, b"\x07" * 32, 0) for seed in range(draws)])
    plan = plan_reduction(spec(ReductionMethod.RANDOM, keep), grid, 2)
    zeros = torch.zeros(draws, grid.tokens)
    result = reduce_tiles(torch.zeros(draws, grid.tokens, 1), Scores(zeros, zeros), plan, seeds)
    frequency = torch.bincount(result.kept.flatten(), minlength=grid.tokens) / draws
    # Expected 0.25; 0.03 is over four standard deviations of a fair draw.
    assert (frequency - keep / grid.tokens).abs().max() < 0.03
    assert len({tuple(row) for row in result.kept.tolist()}) > draws // 3


def test_random_seeds_differ_by_seed_image_and_tile() -> None:
    cases = [(0, b"a" * 32, 0), (1, b"a" * 32, 0), (0, b"b" * 32, 0), (0, b"a" * 32, 1)]
    assert len({tile_seed(*case) for case in cases}) == 4


def test_half_precision_keeps_its_dtype_and_merges_in_float32() -> None:
    grid = Grid(12, 12)
    tokens, scores = draw(8, 1, grid)
    plan = plan_reduction(spec(ReductionMethod.VSCAN, 10), grid, 3)
    half = tokens.to(torch.bfloat16)
    seeds = torch.zeros(1, dtype=torch.int64)
    result = reduce_tiles(half, scores, plan, seeds)
    exact = reduce_tiles(half.double(), scores, plan, seeds)
    assert result.tokens.dtype is torch.bfloat16
    torch.testing.assert_close(result.tokens.double(), exact.tokens, rtol=2**-8, atol=1e-6)


def test_more_tokens_than_the_tile_has_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"budget.tokens_per_tile: 21, limit 20 tokens of a tile"):
        plan_reduction(spec(ReductionMethod.VSCAN, 21), Grid(4, 5), 2)


@pytest.mark.parametrize(
    ("budget", "kept"), [(TargetAverage(1 / 9), 96), (TargetAverage(1 / 3), 288), (TargetAverage(0.9), 576), (Ratio(0.167), 96)]
)
def test_fractions_of_the_paper(budget: TargetAverage | Ratio, kept: int) -> None:
    asked = ReductionSpec(budget=budget).filled_from(DEFAULT_REDUCTION)
    assert plan_reduction(asked, Grid(24, 24), 6).keep_tokens == kept
