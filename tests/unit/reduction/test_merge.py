"""Means over the tokens that go into each row: both ways to sum them up are one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_service.reduction.merge import _sums_by_index, _sums_by_product


@given(
    tiles=st.integers(1, 3),
    tokens=st.integers(1, 40),
    rows=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    padded=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_product_sums_what_indices_sum(tiles: int, tokens: int, rows: int, seed: int, padded: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tiles, tokens, 5, generator=generator, dtype=torch.float64)
    into = torch.randint(0, rows, (tiles, tokens), generator=generator)
    counted = torch.rand(tiles, tokens, generator=generator) > 0.3 if padded else None
    found, expected = (sums(values, into, rows, counted) for sums in (_sums_by_product, _sums_by_index))
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1].to(torch.float64), expected[1])
