"""Who should wait a little, since a running prompt is making the rows that it would run. No torch.

    a   s s s s | K K K K | K K K K | q        runs in pieces, block 1 is next
    b   s s s s | K K K K | K K K K | x y      found block 0, wants block 1: 4 + 4 of its 10 rows are coming, so it waits
    c   s s s s | L L L L | L L L L | z        wants another block 1: begins

Nothing is promised to those that wait: when the maker ends, however that comes, they find what it left and go on by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.table import BlockTable
from decoder_service.sequence import Sequence


class Followers:
    """Owned by the engine's thread. Looks at segment 0 alone: there the images are shared."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._chains: dict[str, BlockTable] = {}  # of those that wait: how much of their prompts was there

    def should_wait(self, sequence: Sequence, running: Iterable[Sequence]) -> bool:
        """Whether at least half of the rows that it would run are being made by one of `running`; then until all are there."""
        chain = self._chains.pop(sequence.name, None)
        if chain is not None and self._coming(sequence, chain, running):
            self._chains[sequence.name] = chain
            return True
        # It may also be that blocks of the chain had to go.
        new = self._cache.chain(0, sequence.rows, tenant=sequence.request.tenant, pruned_from=sequence.pruned_from)
        coming = self._coming(sequence, new, running)
        waits = coming > 0 and (chain is not None or 2 * coming >= sequence.totals[0] - new.linked * new.block_rows)
        if waits:
            self._chains[sequence.name] = new
        return waits

    def forget(self, sequence: Sequence) -> None:
        """It does not wait any more."""
        self._chains.pop(sequence.name, None)

    def _coming(self, sequence: Sequence, chain: BlockTable, running: Iterable[Sequence]) -> int:
        """Rows behind those that are there which it could find soon."""
        wanted = self._cache.lengthen(chain, sequence.rows, sequence.totals[0])
        if wanted is None:
            return 0
        makers = (each for each in running if self._cache.next_link(each.tables[0], each.rows, each.totals[0]) == wanted)
        size, found = chain.block_rows, chain.linked * chain.block_rows
        return max((maker.rows.common(sequence.rows) // size * size - found for maker in makers), default=0)
