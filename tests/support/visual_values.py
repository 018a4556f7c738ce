"""Visual tokens made up for tests: small, valid, and different from seed to seed."""

from __future__ import annotations

import hashlib

import torch

from vscan.cache.body import EntryBody
from vscan.visual_tokens import PickedBy, Tile, VisualTokens


def make_tokens(
    seed: int = 0, *, kept: int = 3, hidden: int = 8, columns: int = 6, dtype: torch.dtype = torch.float32
) -> VisualTokens:
    """One tile of 2 x `columns`, reduced to its first `kept` places, with everything merged."""
    generator = torch.Generator().manual_seed(seed)
    unreduced = 2 * columns
    return VisualTokens(
        tokens=torch.randn(kept, hidden, generator=generator).to(dtype),
        kept_indices=torch.arange(kept),
        picked_by=torch.full((kept,), int(PickedBy.GLOBAL), dtype=torch.uint8),
        merged_into=torch.arange(unreduced).clamp(max=kept - 1),
        tiles=(Tile(2, columns, kept),),
        unreduced_count=unreduced,
    )


def same(one: VisualTokens | None, other: VisualTokens | None) -> bool:
    """Whether two values are equal in every bit."""
    return one is not None and other is not None and one.to_bytes() == other.to_bytes()


def body_of(value: VisualTokens) -> EntryBody:
    """A value's body, as an encoder writes it by default."""
    return EntryBody(value.to_bytes())


def key(name: str) -> bytes:
    """A content key for a test: 32 bytes of its own."""
    return hashlib.sha256(name.encode()).digest()
