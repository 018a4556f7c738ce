"""Which full blocks hold which rows: a chain from the tenant on, found again by content. No torch.

    prompt   s s s v v v v q     blocks of 4 rows, image content key K

    ("acme", 0) ── ((s s s ▢), ((K, 0, 1, 3),)) ──▶ 1 ── ((▢ ▢ ▢ q), ((K, 1, 3, 0),)) ──▶ 2
     tenant and segment        K's token 0, one of them, at row 3     its token 1 and on, three, at row 0

A link is found by the number of the link before it and by its content, compared as a whole: two contents are never taken for
one another. Numbers are never used twice, so a link whose predecessor was evicted cannot be found by mistake.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoder_service.kv_cache.blocks import Block
    from decoder_service.request import Prompt

# The number of a link, or a root: (tenant, segment).
Node = int | tuple[str, int]
Content = tuple[Hashable, ...]
# A block, made or not: the link before it, and what it holds.
Link = tuple[Node, Content]


@dataclass(slots=True)
class RowIdentity:
    """What each row of a sequence is, for comparing: its token id, or its image's key and which of its tokens it is.

    `ids` grows with the answer: generated rows are text.
    """

    prompt: Prompt
    ids: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = list(self.prompt.token_ids)

    @property
    def first_visual_row(self) -> int:
        """Rows before the first visual token; all rows of the prompt if there is none."""
        return self.prompt.spans[0].start if self.prompt.spans else self.prompt.rows

    @property
    def known(self) -> bool:
        """Whether the images can be told from others."""
        return len(self.prompt.image_keys) == len(self.prompt.images)

    def common(self, other: RowIdentity) -> int:
        """Leading rows of both that are the same."""
        bound = min(len(self.ids), len(other.ids))
        for one, two in zip_longest(self._images(), other._images()):
            if one != two:
                bound = min(bound, *(image[0] for image in (one, two) if image is not None))
                break
        return bisect_right(range(bound), 0, key=lambda row: self.ids[: row + 1] != other.ids[: row + 1])

    def content(self, start: int, end: int) -> Content:
        """Of rows `start` to `end`."""
        visual = []
        for span in self.prompt.spans:
            low, high = max(start, span.start), min(end, span.start + span.count)
            if low < high:
                visual.append((self.prompt.image_keys[span.image], low - span.start, high - low, low - start))
        return tuple(self.ids[start:end]), tuple(visual)

    def _images(self) -> list[tuple[int, int, Hashable]]:
        """Where each lies, and which it is; one without a key is like no other."""
        keys = self.prompt.image_keys if self.known else [object() for _ in self.prompt.spans]
        return [(span.start, span.count, keys[span.image]) for span in self.prompt.spans]


class PrefixIndex:
    """Links of full blocks. Owned by the engine's thread.

    `idle` holds the blocks that nobody holds, least recently used first.
    """

    def __init__(self) -> None:
        self.idle: OrderedDict[Block, None] = OrderedDict()
        self._links: dict[Link, Block] = {}
        self._places: dict[Block, tuple[Link, int]] = {}
        self._next = 0

    @property
    def made(self) -> int:
        """Links made since the start."""
        return self._next

    def find(self, before: Node, content: Content) -> tuple[Node, Block] | None:
        """The link that follows `before`, and its block."""
        block = self._links.get((before, content))
        return None if block is None else (self._places[block][1], block)

    def add(self, before: Node, content: Content, block: Block) -> Node:
        """Makes a full block findable, unless an equal one is already. Returns the number of the link."""
        found = self.find(before, content)
        if found is not None:
            return found[0]
        self._next += 1
        self._links[before, content] = block
        self._places[block] = (before, content), self._next
        return self._next

    def rest(self, block: Block) -> bool:
        """Nobody holds the block any more. False if it cannot be found again either."""
        if block not in self._places:
            return False
        self.idle[block] = None
        return True

    def revive(self, block: Block) -> None:
        """Somebody holds an idle block again."""
        del self.idle[block]

    def forget(self, block: Block) -> None:
        """An idle block loses its pages."""
        del self.idle[block]
        del self._links[self._places.pop(block)[0]]

    def check_integrity(self) -> None:
        """Raises AssertionError if links and blocks do not match."""
        assert {block: key for key, block in self._links.items()} == {b: place[0] for b, place in self._places.items()}
        assert self.idle.keys() <= self._places.keys(), "an idle block cannot be found"


def leading_blocks(
    index: PrefixIndex, root: Node, rows: RowIdentity, *, limit: int, block_rows: int
) -> list[tuple[Node, Block]]:
    """The longest chain of full blocks within the first `limit` rows that is there already."""
    found: list[tuple[Node, Block]] = []
    for start in range(0, limit - block_rows + 1, block_rows):
        link = index.find(found[-1][0] if found else root, rows.content(start, start + block_rows))
        if link is None:
            break
        found.append(link)
    return found
