"""Where hidden states lie in pages: apart from each other, and nowhere but in their own pages."""

from __future__ import annotations

import pytest
import torch

from decoder_service.kv_cache.cache import KvCache, Tables
from decoder_service.kv_cache.prefix import RowIdentity
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.kv_cache.storage import KvStorage, _first_pieces
from decoder_service.request import Prompt

CPU = torch.device("cpu")
BLOCK_ROWS, PAGES = 4, 40
# Places that share a page, a place that takes one, several, and one whose last strip is not full.
SHAPES = [
    (KvShape(2, 8, 16, 4), (2,), 4, 1),
    (KvShape(2, 8, 48, 4), (2,), 1, 1),
    (KvShape(1, 8, 48, 4), (1,), 1, 3),
    (KvShape(2, 8, 20, 4), (2,), 2, 1),
    (KvShape(1, 8, 30, 4), (1, 2), 1, 2),
]


def layout_of(shape: KvShape, prune_layers: tuple[int, ...]) -> PageLayout:
    return PageLayout(split_layers(4, prune_layers), BLOCK_ROWS, shape)


def opened(cache: KvCache, first: int, rows: int) -> Tables:
    identity = RowIdentity(Prompt(tuple(range(first, first + rows))))
    tables = cache.open(identity, [rows] * len(cache.layout.segments), tenant="acme", pruned_from=1)
    assert tables is not None
    return tables


@pytest.mark.parametrize(("shape", "prune_layers", "places_per_page", "pages_per_place"), SHAPES)
def test_hidden_states_come_back_beside_keys_and_values(
    shape: KvShape, prune_layers: tuple[int, ...], places_per_page: int, pages_per_place: int
) -> None:
    layout = layout_of(shape, prune_layers)
    assert (layout.places_per_page, layout.pages_per_place) == (places_per_page, pages_per_place)
    cache = KvCache(layout, pages=PAGES)
    storage = KvStorage(layout, pages=PAGES, dtype=torch.float32, device=CPU)
    generator = torch.Generator().manual_seed(0)
    written = []
    for tables in (opened(cache, 0, 9), opened(cache, 100, 6)):
        for table in tables:
            rows = range(9 if tables[0].capacity == 12 else 6)
            where = storage.rows(table.runs(0, len(rows)))
            keys, values = (torch.randn((shape.kv_heads, len(rows), 8), generator=generator) for _ in range(2))
            layer = layout.segments[table.segment].first_layer
            storage.write(layer, where, keys, values)
            hidden = None
            if layout.has_boundary(table.segment):
                hidden = torch.randn((len(rows), shape.hidden_size), generator=generator)
                storage.write_boundary(storage.boundary(table.block_rows_of(rows)), hidden)
            written.append((table, layer, where, rows, keys, values, hidden))
    for table, layer, where, rows, keys, values, hidden in written:
        found = [plane[:, where] for plane in storage.by_head(layer)]
        assert torch.equal(found[0], keys)
        assert torch.equal(found[1], values)
        if hidden is not None:
            assert torch.equal(storage.read_boundary(storage.boundary(table.block_rows_of(rows))), hidden)
    cache.check_integrity()


@pytest.mark.parametrize("by_head", [True, False])
@pytest.mark.parametrize(("shape", "prune_layers", "places_per_page", "pages_per_place"), SHAPES)
def test_strips_of_a_page_are_its_memory(
    shape: KvShape, prune_layers: tuple[int, ...], places_per_page: int, pages_per_place: int, by_head: bool
) -> None:
    """On a GPU the heads of a row follow each other: other pieces, of the same pages."""
    layout = layout_of(shape, prune_layers)
    rows, page = PAGES * BLOCK_ROWS, 7
    strips = _first_pieces(layout, rows, by_head=by_head).flatten()
    stride = 1 if by_head else shape.kv_heads
    pieces = (strips[:, None] + torch.arange(page * BLOCK_ROWS, (page + 1) * BLOCK_ROWS) * stride).flatten()
    inner = (shape.kv_heads, rows) if by_head else (rows, shape.kv_heads)
    numbered = torch.arange(layout.group_layers * 2 * rows * shape.kv_heads).view(layout.group_layers, 2, *inner)
    own = (numbered if by_head else numbered.transpose(2, 3))[:, :, :, page * BLOCK_ROWS : (page + 1) * BLOCK_ROWS]
    assert len(set(pieces.tolist())) == pieces.numel()
    assert set(pieces.tolist()) <= set(own.flatten().tolist())
    used = layout.places_per_page * layout.place_strips if layout.pages_per_place == 1 else layout.page_strips
    assert pieces.numel() == used * BLOCK_ROWS
