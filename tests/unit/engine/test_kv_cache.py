"""Pages, blocks, prefixes and forks, without a tensor but where rows are copied."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch

from decoder_service.kv_cache.cache import KvCache, Tables, pages_of_samples
from decoder_service.kv_cache.pages import PageAllocator
from decoder_service.kv_cache.prefix import RowIdentity
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.kv_cache.table import BlockTable
from decoder_service.request import ImageSpan, Prompt

SHAPE = KvShape(1, 2, 2, 4)
LAYOUT = PageLayout(split_layers(4, (2,)), 4, SHAPE)


def text(*ids: int) -> RowIdentity:
    return RowIdentity(Prompt(tuple(ids)))


def picture(key: bytes, *, before: int = 2, tokens: int = 10, after: tuple[int, ...] = (7, 8)) -> RowIdentity:
    """Text, an image, text: the image's first full block is the second of the prompt."""
    ids = (*range(100, 100 + before), *[0] * tokens, *after)
    return RowIdentity(Prompt(ids, (ImageSpan(0, before, tokens),), (None,), (key,)))  # type: ignore[arg-type]


def opened(cache: KvCache, rows: RowIdentity, *, tenant: str = "acme", pruned_from: int = 2, kept: int | None = None) -> Tables:
    count = len(rows.ids)
    tables = cache.open(rows, (count, count if kept is None else kept), tenant=tenant, pruned_from=pruned_from)
    assert tables is not None
    return tables


def reused(tables: Tables) -> list[int]:
    return [table.rows for table in tables]


def run(cache: KvCache, tables: Tables, rows: RowIdentity, *, kept: int | None = None) -> None:
    count = len(rows.ids)
    cache.commit(tables, (count, count if kept is None else kept), rows)


def test_new_runs_leave_the_room_that_others_hope_for() -> None:
    pages = PageAllocator(20)
    assert pages.take(3, room=4) == [0, 1, 2]
    assert pages.hope(range(3, 7)) == range(3, 7)
    assert pages.take(2, room=4) == [7, 8]
    assert pages.take(2, after=2) == [3, 4]
    assert pages.take(9) == [9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert pages.take(4) == [5, 6, 18, 19]  # at the cost of hopes, and not in one run
    with pytest.raises(ValueError, match="0 free"):
        pages.take(1)
    pages.release([7, 8])
    with pytest.raises(ValueError, match="not taken"):
        pages.release([7])
    pages.check_integrity(page for page in range(20) if page not in (7, 8))


def test_rows_lie_in_as_few_runs_as_pages_do() -> None:
    cache = KvCache(LAYOUT, pages=20)
    first, second = opened(cache, text(*range(9))), opened(cache, text(*range(50, 59)))
    assert first[0].runs(0, 9) == [(0, 9)]
    assert cache.reserve(first[:1], (13,))
    [run_one, run_two] = first[0].runs(0, 13)
    assert run_one == (0, 12)
    assert first[0].runs(5, 13) == [(5, 7), (run_two[0], 1)]
    assert first[0].places([3, 12, 0]) == [3, run_two[0], 0]
    for tables in (first, second):
        cache.close(tables)
    cache.check_integrity()


def test_a_second_question_finds_the_full_blocks_before_its_own_rows() -> None:
    cache = KvCache(LAYOUT, pages=40)
    one = picture(b"K")
    tables = opened(cache, one, pruned_from=1, kept=8)
    assert reused(tables) == [0, 0]
    run(cache, tables, one, kept=8)
    cache.close(tables)
    assert [segment.used_bytes for segment in cache.usage()] == [0, 0]
    assert cache.usage()[0].idle_bytes == 3 * LAYOUT.block_bytes(0)  # 14 rows: three full blocks
    assert cache.usage()[1].idle_bytes == 0  # the first visual row lies in the first block

    other = opened(cache, picture(b"K", after=(9, 9)), pruned_from=1, kept=8)
    assert reused(other) == [12, 0]
    for unlike in (picture(b"L"), picture(b"K", before=3), text(100, 101, *[0] * 10)):
        strange = opened(cache, unlike, pruned_from=1, kept=8)
        assert reused(strange) == [0, 0]
        cache.close(strange)
    foreign = opened(cache, picture(b"K"), tenant="zoo", pruned_from=1, kept=8)
    assert reused(foreign) == [0, 0]
    cache.close(other)
    cache.close(foreign)
    cache.check_integrity()


def test_segments_behind_a_pruning_share_only_what_lies_before_the_first_visual_row() -> None:
    cache = KvCache(LAYOUT, pages=60)
    one = picture(b"K", before=9)
    tables = opened(cache, one, pruned_from=1, kept=14)
    run(cache, tables, one, kept=14)
    pruned = opened(cache, picture(b"K", before=9), pruned_from=1, kept=14)
    assert reused(pruned) == [20, 8]
    whole = opened(cache, picture(b"K", before=9))  # unpruned: what only pruned ones ran is not there
    assert reused(whole) == [20, 8]
    run(cache, whole, picture(b"K", before=9))
    again = opened(cache, picture(b"K", before=9))
    assert reused(again) == [20, 20]
    pruned_again = opened(cache, picture(b"K", before=9), pruned_from=1, kept=14)
    assert reused(pruned_again) == [20, 8]
    for one_of in (tables, pruned, whole, again, pruned_again):
        cache.close(one_of)
    cache.check_integrity()


def test_the_last_row_always_runs_in_the_last_segment() -> None:
    cache = KvCache(LAYOUT, pages=40)
    rows = text(*range(8))
    tables = opened(cache, rows)
    run(cache, tables, rows)
    again = opened(cache, text(*range(8)))
    assert reused(again) == [8, 4]


def test_images_without_a_key_are_not_shared() -> None:
    cache = KvCache(LAYOUT, pages=40)

    def nameless() -> RowIdentity:
        return RowIdentity(Prompt((1, 2, 3, 4, 5, 0, 0, 0, 9), (ImageSpan(0, 5, 3),), (None,)))  # type: ignore[arg-type]

    tables = opened(cache, nameless())
    run(cache, tables, nameless())
    assert reused(opened(cache, nameless())) == [4, 4]


def test_without_reuse_nothing_is_kept() -> None:
    cache = KvCache(LAYOUT, pages=8, reuse=False)
    for _ in range(3):
        tables = opened(cache, text(*range(9)))
        assert reused(tables) == [0, 0]
        run(cache, tables, text(*range(9)))
        cache.close(tables)
    assert cache.available == 8


def test_the_least_recently_used_ends_of_prefixes_go_first() -> None:
    cache = KvCache(LAYOUT, pages=12)
    for first in (0, 50):
        rows = text(*range(first, first + 8))
        tables = opened(cache, rows)
        run(cache, tables, rows)
        cache.close(tables)
    assert cache.available == 12
    cache.close(opened(cache, text(*range(70, 80))))  # six pages: four are free
    assert reused(opened(cache, text(*range(50, 58)))) == [8, 4]
    kept = opened(cache, text(*range(8)))
    assert kept[0].rows < 8
    cache.check_integrity()


def test_no_room_takes_nothing() -> None:
    cache = KvCache(LAYOUT, pages=7)
    tables = opened(cache, text(*range(8)))  # two blocks in each segment, and a page of places
    assert cache.open(text(*range(20, 28)), (8, 8), tenant="acme", pruned_from=2) is None
    assert not cache.reserve(tables, (17, 17))
    assert cache.available == 2
    cache.check_integrity()


def write(storage: KvStorage, table: BlockTable, row: int, value: float) -> None:
    [place] = table.places([row])
    for plane in (*storage.planes(0), *storage.planes(3)):
        plane[place] = value
    storage.write_boundary(storage.boundary(table.block_rows_of([row])), torch.full((1, 2), value))


def read(storage: KvStorage, table: BlockTable, count: int) -> list[float]:
    places = table.places(range(count))
    values = storage.read_boundary(storage.boundary(table.block_rows_of(range(count))))[:, 0]
    assert torch.equal(values, storage.planes(0)[1][places][:, 0, 1])
    return [float(value) for value in values]


def test_a_fork_copies_a_block_when_one_of_both_writes() -> None:
    cache = KvCache(LAYOUT, pages=20)
    storage = KvStorage(LAYOUT, pages=20, dtype=torch.float32, device=torch.device("cpu"))
    rows = text(*range(6))
    trunk = opened(cache, rows)
    for row in range(6):
        write(storage, trunk[0], row, float(row))
    run(cache, trunk, rows)
    fork = cache.fork(trunk)
    assert [segment.blocks for segment in cache.usage()] == [2, 2]

    assert cache.reserve(fork, (7, 7))
    copies = cache.take_copies()
    assert [(old.segment, len(old.pages)) for old, _ in copies] == [(0, 1), (1, 1)]
    assert [segment.blocks for segment in cache.usage()] == [3, 3]
    storage.copy(copies)
    write(storage, fork[0], 6, 60.0)
    assert cache.reserve(trunk, (7, 7))
    assert cache.take_copies() == []  # the trunk is alone in its last block now
    write(storage, trunk[0], 6, 70.0)
    assert read(storage, fork[0], 7) == [0, 1, 2, 3, 4, 5, 60]
    assert read(storage, trunk[0], 7) == [0, 1, 2, 3, 4, 5, 70]
    cache.close(trunk)
    cache.close(fork)
    cache.check_integrity()


def test_the_block_of_the_next_row_becomes_its_own_whatever_room_lies_behind() -> None:
    cache = KvCache(LAYOUT, pages=40)
    storage = KvStorage(LAYOUT, pages=40, dtype=torch.float32, device=torch.device("cpu"))
    rows = text(*range(6))
    trunk = opened(cache, rows)
    for row in range(6):
        write(storage, trunk[0], row, float(row))
    run(cache, trunk, rows)
    assert cache.reserve(trunk, (16, 16))  # blocks 2 and 3 are room
    fork = cache.fork(trunk)
    before = list(trunk[0].blocks)

    assert cache.reserve(trunk, (16, 16))
    storage.copy(cache.take_copies())
    write(storage, trunk[0], 6, 70.0)
    assert [one is other for one, other in zip(before, trunk[0].blocks, strict=True)] == [True, False, True, True]
    assert cache.reserve(fork, (7, 7))
    assert cache.take_copies() == []
    write(storage, fork[0], 6, 60.0)
    assert read(storage, trunk[0], 7) == [0, 1, 2, 3, 4, 5, 70]
    assert read(storage, fork[0], 7) == [0, 1, 2, 3, 4, 5, 60]
    cache.check_integrity()
    cache.close(trunk)
    cache.close(fork)
    cache.check_integrity()


def test_samples_take_the_full_blocks_of_what_they_share_once() -> None:
    # 13 rows in both segments, 6 of them shared in the first and 3 in the second: 1 + 3 x 3 blocks, and 0 + 3 x 4.
    least = LAYOUT.block_pages((10, 12))
    assert pages_of_samples(LAYOUT, (13, 13), (6, 3), samples=3) == least
    assert pages_of_samples(LAYOUT, (13, 13), (6, 3), samples=1) == LAYOUT.pages((13, 13))
    assert KvCache(LAYOUT, pages=least).fits((13, 13), (6, 3), samples=3)
    assert not KvCache(LAYOUT, pages=least - 1).fits((13, 13), (6, 3), samples=3)


@pytest.mark.parametrize("prune_layers", [(), (2,), (1, 3)])
@pytest.mark.parametrize("seed", range(6))
def test_no_page_leaks_under_a_random_schedule(seed: int, prune_layers: tuple[int, ...]) -> None:
    generator = random.Random(seed)
    layout = PageLayout(split_layers(4, prune_layers), 4, SHAPE)
    cache = KvCache(layout, pages=40)
    live: list[tuple[Tables, RowIdentity]] = []
    for _ in range(300):
        action = generator.choice(["open", "open", "grow", "grow", "close", "fork"])
        if action == "open":
            rows = text(*range(4 * generator.randrange(3)), *(generator.randrange(3) for _ in range(generator.randint(1, 12))))
            totals = [len(rows.ids)] * len(layout.segments)
            tables = cache.open(rows, totals, tenant="a", pruned_from=9, room_rows=generator.randrange(9))
            if tables is not None:
                cache.commit(tables, totals, rows)
                live.append((tables, rows))
        elif live and action == "grow":
            tables, rows = generator.choice(live)
            rows.ids.append(generator.randrange(3))
            if cache.reserve(tables, [len(rows.ids)] * len(tables)):
                cache.commit(tables, [len(rows.ids)] * len(tables), rows)
            else:
                rows.ids.pop()
        elif live and action == "fork":
            tables, rows = generator.choice(live)
            copy = RowIdentity(rows.prompt)
            copy.ids = list(rows.ids)
            live.append((cache.fork(tables), copy))
        elif live:
            cache.close(live.pop(generator.randrange(len(live)))[0])
        cache.take_copies()
        cache.check_integrity()
    for tables, _ in live:
        cache.close(tables)
    assert cache.available == 40
    cache.drop_idle()
    cache.check_integrity()


def test_the_cache_does_not_import_torch() -> None:
    code = "import sys, decoder_service.kv_cache.cache, decoder_service.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
