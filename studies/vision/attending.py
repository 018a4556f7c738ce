"""What the queries and keys of a layer say: who is looked at, and from how far. Softmax in float32, as the scans take it.

Weights exist for a block of queries at a time, never for all queries of all heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from encoder_service.reduction.budget import Grid
from encoder_service.vision.attention import first_row_scores
from encoder_service.vision.base import CLASS_ROW, Attending
from encoder_service.vision.packed_attention import PackedSequences, received_scores

# Attention weights that exist at a time, all heads together.
_BLOCK_WEIGHTS = 2**21
_LEAST = 1e-30


def has_class(attending: Attending) -> bool:
    """Whether the first row is the [CLS] token."""
    return int(attending.places[0]) == CLASS_ROW


def looked_at(attending: Attending, patches: int) -> torch.Tensor:
    """How much each patch is looked at: by [CLS] where there is one, else by all patches of the tile.

    Mean over heads, and over the patches that look; those of other windows do not. By [CLS] it is the score of the LLaVA
    families, by patches that of Qwen2.5-VL divided by the number of heads (VScan, arXiv 2505.22654, and its release).

    Args:
        patches: of the whole tile.

    Returns:
        [rows], or [rows - 1] of the patches alone, on the CPU: shares of 1, less what [CLS] keeps for itself.
    """
    query, key = attending.query, attending.key
    if has_class(attending):
        return first_row_scores(query[None], key[None], attending.scaling)[0].cpu()
    heads, rows, _ = query.shape
    received = received_scores(query, key, attending.scaling, PackedSequences([rows], query.device))
    return (received * rows / (heads * patches)).cpu()


def weights_from(attending: Attending, patch: int, patches: int) -> torch.Tensor:
    """Where one patch looks: mean over heads, [patches], on the CPU; 0 outside its window. [CLS] is left out.

    Zeros where `patch` is not among the rows.
    """
    found = torch.zeros(patches)
    (at,) = (attending.places == patch).nonzero(as_tuple=True)
    if len(at):
        weights = _weights(attending, at.to(attending.query.device), attending.key.float()).mean(dim=0)[0].cpu()
        seen = attending.places != CLASS_ROW
        found[attending.places[seen]] = weights[seen]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """How far patches look: sums over patches, each [heads], float64, on the CPU; divided by their number they are means."""

    distance_patches: torch.Tensor  # between the centres of who looks and who is looked at; of what goes to patches
    in_window: torch.Tensor  # share of what goes to patches that stays in the window of the local scan
    to_class: torch.Tensor  # share that goes to [CLS]


def reach(attending: Attending, grid: Grid, window: int) -> Reach:
    """How far the patches among the rows look, by head (mean attention distance: arXiv 2010.11929, figure 7).

    What a patch gives to [CLS] is left out and the rest taken for the whole, so that the distance is among patches only; where
    nothing is left it is 0.

    Args:
        grid: patches of the tile.
        window: side of a window of the local scan, in patches.
    """
    heads = attending.query.shape[0]
    sums = torch.zeros(3, heads, dtype=torch.float64)
    device = attending.query.device
    places = attending.places.to(device)
    is_patch = places != CLASS_ROW
    spots = torch.stack([places // grid.columns, places % grid.columns], dim=-1)[is_patch].float()  # [n, 2]
    cells = _windows(spots, grid, window)
    key = attending.key.float()
    for rows in _blocks(is_patch, heads * len(places)):
        weights = _weights(attending, rows, key)
        among = weights[..., is_patch]
        whole = among.sum(dim=-1).clamp(min=_LEAST)
        own = rows - int(has_class(attending))  # the same patches, counted among patches
        apart = torch.cdist(spots[own], spots)
        together = (cells[own, None] == cells[None]).float()
        parts = [(among * apart).sum(-1) / whole, (among * together).sum(-1) / whole, 1 - whole]
        sums += torch.stack([part.double().sum(dim=-1).cpu() for part in parts])
    return Reach(*sums)


def uniform_reach(grid: Grid, window: int) -> tuple[float, float]:
    """Distance, and share within the window, where patches look at all alike: means over pairs of patches."""
    down, across = (torch.arange(side).float() for side in (grid.rows, grid.columns))
    cells = _windows(torch.cartesian_prod(down, across), grid, window)
    in_cell = cells.long().bincount().double() / grid.tokens
    # Pairs are pairs of offsets: of n rows there are n - d that lie d apart, each way.
    downs, acrosses = ((torch.arange(-side + 1, side), side) for side in (grid.rows, grid.columns))
    pairs = (downs[1] - downs[0].abs())[:, None] * (acrosses[1] - acrosses[0].abs())[None]
    apart = torch.hypot(downs[0][:, None].double(), acrosses[0][None].double())
    return float((pairs * apart).sum() / grid.tokens**2), float((in_cell**2).sum())


def _windows(spots: torch.Tensor, grid: Grid, window: int) -> torch.Tensor:
    """The window of each patch, [n]: counted by floor, the rest belongs to the last ones, as the local scan has them."""
    down, across = max(1, grid.rows // window), max(1, grid.columns // window)
    row, column = (spots[:, 0] // window).clamp(max=down - 1), (spots[:, 1] // window).clamp(max=across - 1)
    return row * across + column


def _blocks(is_patch: torch.Tensor, weights_of_a_query: int) -> Iterator[torch.Tensor]:
    """The rows that are patches, a few at a time."""
    rows = is_patch.nonzero()[:, 0]
    yield from torch.split(rows, max(1, _BLOCK_WEIGHTS // weights_of_a_query))


def _weights(attending: Attending, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Attention of some rows to all, whose keys are given in float32, [heads, some, rows], float32."""
    query = attending.query[:, rows].float() * attending.scaling
    return (query @ key.transpose(1, 2)).softmax(dim=-1)
