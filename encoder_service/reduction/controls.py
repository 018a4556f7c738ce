"""The control that any method must beat: choosing at random."""

from __future__ import annotations

import torch

from vscan.content_key import framed_sha256

# splitmix64's increment and multipliers, as signed 64-bit numbers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def tile_seed(seed: int, media_sha256: bytes, tile: int) -> int:
    """The seed of one tile, a signed 64-bit number.

    It depends on the request's seed, the image and the tile's index alone: neither batch nor device changes what is drawn.
    """
    digest = framed_sha256([b"random reduction", str(seed).encode(), media_sha256, str(tile).encode()])
    return int.from_bytes(digest[:8], "big", signed=True)


def random_scores(tile_seeds: torch.Tensor, tokens: int) -> torch.Tensor:
    """Scores of which the best T are a uniform draw: splitmix64 of seed and index, the same on every device and release.

    Args:
        tile_seeds: [tiles], int64.

    Returns:
        [tiles, tokens], int64.
    """
    state = tile_seeds[:, None] + torch.arange(1, tokens + 1, device=tile_seeds.device) * _INCREMENT
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: torch.Tensor, bits: int) -> torch.Tensor:
    # A logical shift: int64's own keeps the sign.
    return (state >> bits) & ((1 << (64 - bits)) - 1)
