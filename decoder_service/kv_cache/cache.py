"""The cache as the scheduler sees it: sequences get room, find what is there already, and give it back. No torch.

open ──▶ (reserve ──▶ a step writes ──▶ commit)* ──▶ close        fork: a second sequence that holds the same blocks
"""

from __future__ import annotations

from collections.abc import Sequence

from decoder_service.kv_cache.blocks import Block, BlockPool
from decoder_service.kv_cache.prefix import Link, PrefixIndex, RowIdentity, leading_blocks
from decoder_service.kv_cache.segments import PageLayout, PageUsage, SegmentUsage
from decoder_service.kv_cache.table import BlockTable

# So many blocks ahead an answer finds its next pages behind its last ones, where it can be: attention reads few runs faster.
_AHEAD_BLOCKS = 4

# A sequence's block tables, by segment.
Tables = list[BlockTable]
# Blocks whose rows are to be copied before the next step: from, to.
Copy = tuple[Block, Block]


class KvCache:
    """Owned by the engine's thread; `fits` may be called from any.

    Args:
        pages: of all segments together.
        reuse: whether prompts find what earlier ones left.
    """

    def __init__(self, layout: PageLayout, *, pages: int, reuse: bool = True) -> None:
        self.layout = layout
        self.reused_rows = 0  # since the start, rows of segment 0
        self._reuse = reuse
        self._index = PrefixIndex()
        self._pool = BlockPool(layout, pages=pages, index=self._index)
        self._open: set[BlockTable] = set()
        self._copies: list[Copy] = []

    @property
    def pages(self) -> int:
        """All of them."""
        return self._pool.pages

    @property
    def available(self) -> int:
        """Pages that can be had."""
        return self._pool.available

    @property
    def made(self) -> int:
        """Blocks that became findable, since the start."""
        return self._index.made

    def fits(self, rows: Sequence[int], shared_rows: Sequence[int], *, samples: int) -> bool:
        """Whether so many samples of one request, alone, can be held; see `pages_of_samples`."""
        return pages_of_samples(self.layout, rows, shared_rows, samples=samples) <= self.pages

    def open(
        self,
        rows: RowIdentity,
        totals: Sequence[int],
        *,
        tenant: str,
        pruned_from: int,
        room_rows: int = 0,
        spare_pages: int = 0,
        own_rows: int = 0,
    ) -> Tables | None:
        """Room for a sequence; `table.rows` of each say how many leading rows are there already.

        Args:
            rows: what they are.
            totals: rows in each segment.
            tenant: whose sequence; nothing is found across tenants.
            pruned_from: the first segment that misses rows of this prompt; the number of segments if none does.
            room_rows: how many more may follow, for placing.
            spare_pages: must be left to others.
            own_rows: rows of segment 0 that the sequence held before; finding those is no reuse.

        Returns:
            None if there is too little room now.
        """
        tables = [self._table(segment, rows, tenant, pruned_from) for segment in range(len(totals))]
        self._open.update(tables)
        for table, total in zip(tables, totals, strict=True):
            # The last row must run in the last segment: there the next token comes from.
            self._find(table, rows, total - 1 if table is tables[-1] else total)
        lacking = [self._lacking(table, total) for table, total in zip(tables, totals, strict=True)]
        if not self._pool.has_room(lacking, spare_pages=spare_pages):
            self.close(tables)
            return None
        self._pool.make_room(lacking)
        self.reused_rows += max(0, tables[0].rows - own_rows)
        for table, total in zip(tables, totals, strict=True):
            self._extend(table, total, room_rows)
        return tables

    def reserve(self, tables: Tables, ends: Sequence[int]) -> bool:
        """Makes room for rows up to `ends[s]` in segment s, in blocks of the sequence's own. False: there are too few pages."""
        if all(_writable(table, end) for table, end in zip(tables, ends, strict=True)):
            return True
        shared = [table for table in tables if table.rows < table.capacity and _next_block(table).refs > 1]
        lacking = [0] * len(self.layout.segments)
        for table, end in zip(tables, ends, strict=True):
            lacking[table.segment] += self._lacking(table, end) + (table in shared)
        if not self._pool.has_room(lacking):
            return False
        self._pool.make_room(lacking)
        for table in shared:
            self._own_next_block(table)
        for table, end in zip(tables, ends, strict=True):
            self._grow(table, end)
        return True

    def commit(self, tables: Tables, ends: Sequence[int], rows: RowIdentity, *, proven: bool = True) -> None:
        """Rows up to `ends[s]` of segment s are written in all its layers, and at the boundary behind it.

        `proven`: they are known to be sound, so that others may find them. Until then nobody does: a row that is NaN may have
        spoilt those before it in its step, also ones that other prompts begin with.
        """
        for table, end in zip(tables, ends, strict=True):
            table.rows = end
            if proven:
                self._link(table, rows)

    def close(self, tables: Tables) -> None:
        """Gives everything back."""
        for table in tables:
            self._pool.release(table.blocks)
            for hope in table.hopes:
                self._pool.allocator.give_up(hope)
            self._open.remove(table)

    def next_link(self, table: BlockTable, rows: RowIdentity, total: int) -> Link | None:
        """What its next block will be found by once it is written; None if that is not known yet, or will not be found."""
        start, end = table.linked * table.block_rows, (table.linked + 1) * table.block_rows
        known = total if table.shareable_rows is None else min(total, table.shareable_rows)
        return (table.node, rows.content(start, end)) if self._reuse and end <= known else None

    def chain(self, segment: int, rows: RowIdentity, *, tenant: str, pruned_from: int) -> BlockTable:
        """A table without room, for `lengthen`."""
        return self._table(segment, rows, tenant, pruned_from)

    def lengthen(self, chain: BlockTable, rows: RowIdentity, total: int) -> Link | None:
        """Lets `chain.linked` say how many blocks are there already. Returns what the block behind them would be found by."""
        while (link := self.next_link(chain, rows, total)) is not None:
            found = self._index.find(*link)
            if found is None:
                return link
            chain.node, chain.linked = found[0], chain.linked + 1
        return None

    def fork(self, tables: Tables) -> Tables:
        """A second sequence with the same rows, in the same blocks; a partly filled one is copied by whoever writes first.

        The rows are proven (`commit`): of a full block that two hold and neither has made findable, each would make a link.
        """
        forks = []
        for table in tables:
            fork = BlockTable(table.segment, table.block_rows, table.groups, table.shareable_rows, table.node, table.linked)
            shared = table.blocks[: self.layout.blocks(table.rows)]
            for block in shared:
                self._pool.share(block)
            fork.append(shared)
            fork.rows = table.rows
            forks.append(fork)
        self._open.update(forks)
        return forks

    def take_copies(self) -> list[Copy]:
        """What must be copied before the next step; the caller does it. Who gave its blocks back meanwhile needs none."""
        copies, self._copies = self._copies, []
        return [(source, target) for source, target in copies if target.refs]

    def drop_idle(self) -> None:
        """Forgets what nobody holds."""
        self._pool.drop_idle()

    def page_usage(self) -> PageUsage:
        """Who has the pages."""
        return self._pool.usage

    def usage(self) -> tuple[SegmentUsage, ...]:
        """By segment."""
        rows = [0] * len(self.layout.segments)
        for table in self._open:
            rows[table.segment] += table.rows
        return tuple(
            SegmentUsage(segment, rows[segment.index], held, held * size, idle * size)
            for segment, (held, idle) in zip(self.layout.segments, self._pool.counts(), strict=True)
            for size in (self.layout.block_bytes(segment.index),)
        )

    def check_integrity(self) -> None:
        """Raises AssertionError if a page leaked, or a count is wrong."""
        self._pool.check_integrity(table.blocks for table in self._open)

    def _table(self, segment: int, rows: RowIdentity, tenant: str, pruned_from: int) -> BlockTable:
        """Across requests a segment behind a pruning shares only what lies before the first visual row."""
        bounded = segment >= pruned_from or not rows.known
        return BlockTable(
            segment=segment,
            block_rows=self.layout.block_rows,
            groups=self.layout.pages_per_block(segment),
            shareable_rows=rows.first_visual_row if bounded else None,
            node=(tenant, segment),
        )

    def _find(self, table: BlockTable, rows: RowIdentity, limit: int) -> None:
        if not self._reuse:
            return
        bounded = limit if table.shareable_rows is None else min(limit, table.shareable_rows)
        for node, block in leading_blocks(self._index, table.node, rows, limit=bounded, block_rows=table.block_rows):
            self._pool.share(block)
            table.append((block,))
            table.node = node
        table.linked = len(table.blocks)
        table.rows = table.capacity

    def _lacking(self, table: BlockTable, rows: int) -> int:
        return max(0, self.layout.blocks(rows) - len(table.blocks))

    def _grow(self, table: BlockTable, rows: int) -> None:
        lacking = self._lacking(table, rows)
        if lacking and table.blocks:
            self._pool.make_stretches(table.segment, lacking, table.blocks[-1], _AHEAD_BLOCKS)
        self._extend(table, rows, _AHEAD_BLOCKS * table.block_rows)

    def _extend(self, table: BlockTable, rows: int, room_rows: int = 0) -> None:
        lacking = self._lacking(table, rows)
        if not lacking:
            return
        room = self.layout.blocks(room_rows)
        last = table.blocks[-1] if table.blocks else None
        # Where others share nothing but the beginning, what is taken now goes when the sequence does.
        far = table.shareable_rows is not None
        blocks = self._pool.take(table.segment, lacking, after=last, room=room, far=far)
        table.append(blocks)
        if room:
            ends = [page + 1 for page in blocks[-1].pages]
            table.hopes += [self._pool.allocator.hope(range(end, end + room)) for end in ends]

    def _own_next_block(self, table: BlockTable) -> None:
        own = self._pool.take(table.segment, 1)[0]
        shared = table.replace_next(own)
        self._pool.release([shared])
        self._copies.append((shared, own))

    def _link(self, table: BlockTable, rows: RowIdentity) -> None:
        if not self._reuse:
            return
        size = table.block_rows
        full = table.rows if table.shareable_rows is None else min(table.rows, table.shareable_rows)
        while (table.linked + 1) * size <= full:
            start = table.linked * size
            table.node = self._index.add(table.node, rows.content(start, start + size), table.blocks[table.linked])
            table.linked += 1


def pages_of_samples(layout: PageLayout, rows: Sequence[int], shared_rows: Sequence[int], *, samples: int) -> int:
    """Pages of sequences with `rows[s]` rows each in segment s that share the full blocks of their first `shared_rows[s]` rows.

    blocks of 4 rows, 13 rows, 6 of them shared, 3 samples      b0 | b1 b2 b3 | b4 b5 b6 | b7 b8 b9
    """
    shared = [count // layout.block_rows for count in shared_rows]
    own = [layout.blocks(count) - full for count, full in zip(rows, shared, strict=True)]
    return layout.block_pages([full + samples * each for full, each in zip(shared, own, strict=True)])


def _next_block(table: BlockTable) -> Block:
    """Where the next row goes, if there is room."""
    return table.blocks[table.rows // table.block_rows]


def _writable(table: BlockTable, end: int) -> bool:
    """Whether rows up to `end` can be written as things are; rows behind the next one's block are never shared."""
    return table.rows >= end or (end <= table.capacity and _next_block(table).refs == 1)
