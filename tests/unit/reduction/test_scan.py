"""The scans against the plain reference, with ties, and on grids that windows do not divide."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_service.reduction.budget import Grid
from encoder_service.reduction.scan import capped_scan, global_scan, local_scan, window_of
from tests.unit.reduction import reference

grids = st.builds(Grid, st.integers(1, 9), st.integers(1, 9))
# Few distinct values, so that nearly every case has ties.
seeds = st.integers(0, 2**32 - 1)


def tied_scores(seed: int, tiles: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, 4, (tiles, tokens), generator=torch.Generator().manual_seed(seed)).float() / 4


def tokens_of(mask: torch.Tensor) -> set[int]:
    return set(mask.nonzero().flatten().tolist())


def test_remainder_rows_and_columns_belong_to_the_last_window() -> None:
    assert window_of(Grid(5, 7), 3).view(5, 7).tolist() == [[0, 0, 0, 1, 1, 1, 1]] * 5


def test_a_window_larger_than_the_grid_is_one_window() -> None:
    assert set(window_of(Grid(2, 3), 6).tolist()) == {0}


@given(grid=grids, window=st.integers(1, 5), seed=seeds, data=st.data())
@settings(max_examples=200, deadline=None)
def test_local_scan_is_the_reference(grid: Grid, window: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, grid.tokens))
    scores = tied_scores(seed, 3, grid.tokens)
    kept = local_scan(scores, grid, window, count)
    for tile in range(3):
        assert tokens_of(kept[tile]) == reference.local(scores[tile].tolist(), grid.rows, grid.columns, window, count)


@given(grid=grids, window=st.integers(1, 5), seed=seeds, data=st.data())
@settings(max_examples=200, deadline=None)
def test_capped_scan_is_the_reference(grid: Grid, window: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, grid.tokens))
    scores = tied_scores(seed, 3, grid.tokens)
    kept = capped_scan(scores, grid, window, count)
    for tile in range(3):
        assert tokens_of(kept[tile]) == reference.capped(scores[tile].tolist(), grid.rows, grid.columns, window, count)


@given(tokens=st.integers(1, 60), seed=seeds, data=st.data())
@settings(max_examples=200, deadline=None)
def test_global_scan_takes_the_best_free_tokens(tokens: int, seed: int, data: st.DataObject) -> None:
    scores = tied_scores(seed, 2, tokens)
    taken = tied_scores(seed + 1, 2, tokens) > 0.5
    count = data.draw(st.integers(0, tokens - int(taken.sum(1).max())))
    kept = global_scan(scores, taken, count)
    for tile in range(2):
        free = (~taken[tile]).nonzero().flatten().tolist()
        assert tokens_of(kept[tile]) == set(reference.best(scores[tile].tolist(), free, count))


def test_a_taken_token_is_never_picked_again_even_when_all_scores_are_zero() -> None:
    taken = torch.tensor([[True, True, False, False, True]])
    assert global_scan(torch.zeros(1, 5), taken, 2).tolist() == [[False, False, True, True, False]]


def test_of_equal_scores_the_lower_index_wins() -> None:
    nothing = torch.zeros(1, 100, dtype=torch.bool)
    assert tokens_of(global_scan(torch.ones(1, 100), nothing, 7)[0]) == set(range(7))
