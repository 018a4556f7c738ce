"""The tables on the device are those of the step's sequences, whatever came before, and only what changed is written."""

from __future__ import annotations

import random

import pytest
import torch

from decoder_service.kv_cache.blocks import Block
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.kv_cache.table import BlockTable
from decoder_service.runner import page_tables
from decoder_service.runner.page_tables import PageTables

LAYOUT = PageLayout(split_layers(6, (2,)), 4, KvShape(2, 8, 16, 4))  # 1 and 2 groups of two layers
PLACES, MOST_ROWS = 3, 30


def sequence(pages: random.Random, blocks: int) -> list[BlockTable]:
    tables = [BlockTable(s.index, 4, LAYOUT.pages_per_block(s.index), None, ("", 0)) for s in LAYOUT.segments]
    for table in tables:
        for _ in range(blocks):
            grow(table, pages)
    return tables


def block(table: BlockTable, pages: random.Random) -> Block:
    return Block(table.segment, tuple(pages.randrange(1000) for _ in range(table.groups)))


def grow(table: BlockTable, pages: random.Random) -> None:
    table.append([block(table, pages)])


def written(tables: PageTables, place: int, table: BlockTable) -> list[tuple[int, ...]]:
    own = tables.of(table.segment, PLACES)[:, place, : len(table.blocks)]
    return [tuple(pages) for pages in own.T.tolist()]


def make_tables() -> PageTables:
    return PageTables(LAYOUT, torch.device("cpu"), places=PLACES, most_rows=MOST_ROWS)


def test_tables_follow_sequences_that_grow_copy_change_places_and_come_back() -> None:
    draw, tables = random.Random(0), make_tables()
    known = [sequence(draw, blocks) for blocks in (1, 2, 5, 3)]
    for _ in range(200):
        for table in (table for own in known for table in own):
            if draw.random() < 0.2 and len(table.blocks) < 8:
                grow(table, draw)
            table.rows = draw.randrange(table.capacity)
            if draw.random() < 0.1:
                table.replace_next(block(table, draw))
        if draw.random() < 0.2:
            known[draw.randrange(4)] = sequence(draw, draw.randrange(1, 8))
        step = draw.sample(known, draw.randrange(1, PLACES + 1))
        tables.fill(step)
        for place, own in enumerate(step):
            for table in own:
                assert written(tables, place, table) == [block.pages for block in table.blocks]


def test_only_what_changed_is_written() -> None:
    draw, tables = random.Random(1), make_tables()
    first, second, third = (sequence(draw, blocks) for blocks in (2, 3, 1))
    groups = 3  # of both segments
    assert tables.fill([first, second]) == 5 * groups
    assert tables.fill([first, second]) == 0
    grow(second[1], draw)
    assert tables.fill([first, second]) == 2  # a block of segment 1
    assert tables.fill([first, third]) == groups
    assert tables.fill([first]) == 0
    assert tables.fill([first, third]) == 0


def test_after_a_copy_that_failed_nothing_is_taken_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, tables = random.Random(2), make_tables()
    first, second = sequence(draw, 2), sequence(draw, 3)
    tables.fill([first])

    def fails(*given: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(page_tables, "to_device", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        tables.fill([second])
    monkeypatch.undo()
    assert tables.fill([first]) == 2 * 3
    assert [written(tables, 0, table) for table in first] == [[block.pages for block in table.blocks] for table in first]


def test_a_table_follows_itself_in_memory_as_the_kernel_asks() -> None:
    tables = make_tables()
    for segment, groups in ((0, 1), (1, 2)):
        for count in (1, 2, 3):
            own = tables.of(segment, count)
            assert own.shape == (groups, count, 8)
            assert all(group.is_contiguous() for group in own)
