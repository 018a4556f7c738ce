"""Padding is neither kept nor merged while there is anything else; without padding nothing changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_service.reduction.budget import Grid, plan_reduction
from encoder_service.reduction.reduce import ReducedTiles, Scores, reduce_tiles
from encoder_service.reduction.scan import local_scan, window_of
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec, TokensPerTile

CHOOSING = [ReductionMethod.VSCAN, ReductionMethod.GLOBAL, ReductionMethod.LOCAL, ReductionMethod.RANDOM]
TILES = 3


def draw(seed: int, grid: Grid) -> tuple[torch.Tensor, Scores, torch.Tensor]:
    """Tokens, scores with ties, and a mask whose last tile has no padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(TILES, grid.tokens, 6, generator=generator, dtype=torch.float64)
    ties = torch.randint(0, 4, (2, TILES, grid.tokens), generator=generator).float() / 4
    share = torch.rand(TILES, 1, generator=generator)
    valid = torch.rand(TILES, grid.tokens, generator=generator) < share
    valid[-1] = True
    return tokens, Scores(ties[0], ties[1]), valid


def reduced(
    tokens: torch.Tensor,
    scores: Scores,
    valid: torch.Tensor | None,
    grid: Grid,
    keep: int,
    method: ReductionMethod,
    *,
    merge: bool = True,
) -> ReducedTiles:
    asked = ReductionSpec(method=method, budget=TokensPerTile(keep), merge=merge).filled_from(DEFAULT_REDUCTION)
    plan = plan_reduction(asked, grid, 3)
    return reduce_tiles(tokens, scores, plan, torch.arange(len(tokens)), valid)


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=150, deadline=None)
def test_padding_is_kept_last_and_merges_with_nothing(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    grid = Grid(rows, columns)
    keep = data.draw(st.integers(1, grid.tokens))
    method = data.draw(st.sampled_from(CHOOSING))
    tokens, scores, valid = draw(seed, grid)
    result = reduced(tokens, scores, valid, grid, keep, method)
    noise = torch.where(valid[:, :, None], tokens, 1e6)
    other = reduced(
        noise, Scores(*(torch.where(valid, s, 9.0) for s in (scores.shallow, scores.deep))), valid, grid, keep, method
    )
    assert result.kept.shape == (TILES, keep)
    assert (result.kept.diff(dim=1) > 0).all()
    for tile in range(TILES):
        real = valid[tile, result.kept[tile]]
        assert int(real.sum()) == min(keep, int(valid[tile].sum()))
        same = valid[tile, other.kept[tile]]
        assert torch.equal(result.kept[tile][real], other.kept[tile][same])
        torch.testing.assert_close(result.tokens[tile][real], other.tokens[tile][same])
        if result.merged_into is not None:
            held = result.merged_into[tile][valid[tile]]
            assert real[held].all(), "nothing real is held by padding"


@given(seed=st.integers(0, 10_000), method=st.sampled_from(list(ReductionMethod)), keep=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_a_tile_without_padding_is_reduced_as_ever(seed: int, method: ReductionMethod, keep: int) -> None:
    grid = Grid(5, 6)
    tokens, scores, valid = draw(seed, grid)
    masked, plain = (reduced(tokens, scores, mask, grid, keep, method) for mask in (valid, None))
    assert torch.equal(masked.kept[-1], plain.kept[-1])
    assert torch.equal(masked.picked_by[-1], plain.picked_by[-1])
    torch.testing.assert_close(masked.tokens[-1], plain.tokens[-1])


def test_windows_of_padding_alone_leave_their_share_to_the_others() -> None:
    grid = Grid(6, 6)
    valid = (window_of(grid, 3) < 2)[None]  # the upper two of four windows
    kept = local_scan(torch.rand(1, 36), grid, 3, 8, valid)
    assert torch.bincount(window_of(grid, 3)[kept[0]], minlength=4).tolist() == [4, 4, 0, 0]


def test_pooled_cells_leave_padding_out() -> None:
    grid = Grid(4, 4)
    valid = (torch.arange(16) >= 12)[None]  # the last row
    tokens = torch.where(valid[:, :, None], torch.arange(16.0)[None, :, None], 1e6)
    result = reduced(tokens, Scores(tokens[..., 0], tokens[..., 0]), valid, grid, 4, ReductionMethod.POOL)
    assert result.kept[0, 2:].tolist() == [12, 14], "the first token of each cell that is not padding"
    assert result.tokens[0, 2:, 0].tolist() == [12.5, 14.5]


@pytest.mark.parametrize("method", CHOOSING)
def test_a_tile_of_padding_alone_still_has_its_shape(method: ReductionMethod) -> None:
    grid = Grid(4, 4)
    tokens, scores, _ = draw(0, grid)
    result = reduced(tokens, scores, torch.zeros(TILES, 16, dtype=torch.bool), grid, 5, method)
    assert result.tokens.shape == (TILES, 5, 6)
    assert torch.isfinite(result.tokens).all()
