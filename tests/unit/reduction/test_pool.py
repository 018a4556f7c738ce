"""The pooling control: cells keep the tile's aspect and never pass the budget."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from encoder_service.reduction.budget import Grid, plan_reduction, pool_cells, pool_grid
from encoder_service.reduction.reduce import Scores, reduce_tiles
from vscan.specs import DEFAULT_REDUCTION, ReductionMethod, ReductionSpec, TokensPerTile
from vscan.visual_tokens import PickedBy


def test_cells_keep_the_aspect() -> None:
    assert pool_grid(Grid(24, 24), 96) == Grid(9, 9)
    assert pool_grid(Grid(24, 24), 100) == Grid(10, 10)
    assert pool_grid(Grid(10, 20), 50) == Grid(5, 10)
    assert pool_grid(Grid(2, 10), 3) == Grid(1, 3)


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_cells_never_pass_the_budget(rows: int, columns: int, data: st.DataObject) -> None:
    grid = Grid(rows, columns)
    budget = data.draw(st.integers(1, grid.tokens))
    cells = pool_grid(grid, budget, torch.ones(grid.tokens, dtype=torch.bool))
    assert cells == pool_grid(grid, budget)
    assert 1 <= cells.tokens <= budget
    assert cells.rows <= rows
    assert cells.columns <= columns
    assert set(pool_cells(grid, cells).tolist()) == set(range(cells.tokens)), "no cell is empty"


def test_cells_are_means_at_their_first_token() -> None:
    grid = Grid(5, 7)
    assert pool_cells(grid, Grid(2, 3)).view(5, 7).tolist() == [[0, 0, 0, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 4, 4, 5, 5]] * 2
    tokens = torch.randn(2, 35, 4)
    spec = ReductionSpec(method=ReductionMethod.POOL, budget=TokensPerTile(7)).filled_from(DEFAULT_REDUCTION)
    plan = plan_reduction(spec, grid, 3)
    scores = torch.zeros(2, 35)
    result = reduce_tiles(tokens, Scores(scores, scores), plan, torch.zeros(2, dtype=torch.int64))
    cells = pool_cells(grid, pool_grid(grid, 7))
    assert plan.keep_tokens == result.tokens.shape[1] == int(cells.max()) + 1
    for cell in range(plan.keep_tokens):
        members = (cells == cell).nonzero().flatten()
        assert result.kept[:, cell].tolist() == [int(members[0])] * 2
        torch.testing.assert_close(result.tokens[:, cell], tokens[:, members].mean(1))
    assert (result.kept.diff(dim=1) > 0).all()
    assert set(result.picked_by.flatten().tolist()) == {PickedBy.POOL}
