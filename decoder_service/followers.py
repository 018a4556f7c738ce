"""Who should wait a little, since a running prompt is making the rows that it would run. No torch.

    a   s s s s | K K K K | K K K K | q        runs in pieces, block 1 is next
    b   s s s s | K K K K | K K K K | x y      found block 0, wants block 1: 4 + 4 of its 10 rows are coming, so it waits
    c   s s s s | L L L L | L L L L | z        wants another block 1: begins

Nothing is promised to those that wait: when the maker ends, however that comes, they find what it left and go on by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.prefix import Link
from decoder_service.kv_cache.table import BlockTable
from decoder_service.sequence import Sequence

# Running sequences, by what the block that each makes next will be found by.
Makers = dict[Link, list[Sequence]]


class Followers:
    """Owned by the engine's thread. Looks at segment 0 alone: there the images are shared."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._chains: dict[str, BlockTable] = {}  # of those that wait: how much of their prompts was there

    def makers(self, running: Iterable[Sequence]) -> Makers:
        """Who makes which block next."""
        makers: Makers = {}
        for sequence in running:
            link = self._cache.next_link(sequence.tables[0], sequence.rows, sequence.totals[0])
            if link is not None:
                makers.setdefault(link, []).append(sequence)
        return makers

    def should_wait(self, sequence: Sequence, makers: Makers) -> bool:
        """Whether at least half of the rows that it would run are being made by others; then until all of them are there."""
        chain = self._chains.pop(sequence.name, None)
        if not makers:
            return False
        if chain is not None and self._coming(sequence, chain, makers):
            self._chains[sequence.name] = chain
            return True
        # It may also be that blocks of the chain had to go.
        new = self._cache.chain(0, sequence.rows, tenant=sequence.request.tenant, pruned_from=sequence.pruned_from)
        coming = self._coming(sequence, new, makers)
        waits = coming > 0 and (chain is not None or 2 * coming >= sequence.totals[0] - new.linked * new.block_rows)
        if waits:
            self._chains[sequence.name] = new
        return waits

    def forget(self, sequence: Sequence) -> None:
        """It does not wait any more."""
        self._chains.pop(sequence.name, None)

    def _coming(self, sequence: Sequence, chain: BlockTable, makers: Makers) -> int:
        """Rows behind those that are there which it could find soon."""
        wanted = self._cache.lengthen(chain, sequence.rows, sequence.totals[0])
        size, found = chain.block_rows, chain.linked * chain.block_rows
        common = [maker.rows.common(sequence.rows) // size * size for maker in makers.get(wanted, ())] if wanted else []
        return max(common, default=found) - found
