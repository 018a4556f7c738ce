"""The local and the global scan (VScan, arXiv 2505.22654, section 3): which tokens of each tile to keep.

Everything is batched over tiles of one grid. Sorts are stable, so of equal scores the lower index wins. `valid` says which
tokens are not padding, [tiles, N], bool; `None`: all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from encoder_service.reduction.budget import Grid

_MANY_GRIDS = 64  # as an image may have any aspect; each takes some kilobytes


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows of a grid. Laid out once, on the CPU: a device would have to be waited for to learn how many there are."""

    of_token: torch.Tensor  # [N], int64, the window of each token
    places: torch.Tensor  # [N], int64, where tokens lie window after window: the place of each within its window
    sizes: tuple[int, ...]
    members: torch.Tensor | None  # [windows, size], int64, the tokens of each; None where they differ in size

    @property
    def count(self) -> int:
        """How many."""
        return len(self.sizes)


@lru_cache(maxsize=_MANY_GRIDS)
def windows_of(grid: Grid, window: int, device: torch.device) -> Windows:
    """The windows of a grid, with their tensors on `device`."""
    of_token = window_of(grid, window)
    sizes = torch.bincount(of_token)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    places = torch.arange(grid.tokens) - starts
    alike = bool((sizes == sizes[0]).all())
    members = of_token.argsort(stable=True).view(len(sizes), -1).to(device) if alike else None
    return Windows(of_token.to(device), places.to(device), tuple(sizes.tolist()), members)


def window_of(grid: Grid, window: int) -> torch.Tensor:
    """The window of each token, [N], int64, on the CPU.

    Windows are counted by floor; the remaining rows and columns belong to the last window. 5 x 7 tokens, window 3:

        0 0 0 1 1 1 1
        0 0 0 1 1 1 1
        0 0 0 1 1 1 1
        0 0 0 1 1 1 1
        0 0 0 1 1 1 1
    """
    down, across = max(1, grid.rows // window), max(1, grid.columns // window)
    rows = (torch.arange(grid.rows) // window).clamp(max=down - 1)
    columns = (torch.arange(grid.columns) // window).clamp(max=across - 1)
    return (rows[:, None] * across + columns).flatten()


def local_scan(scores: torch.Tensor, grid: Grid, window: int, count: int, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Keeps the best tokens of every window, equally many in each: `count // windows`, or all that the window has.

    Windows that hold nothing but padding get no share. What `count` leaves over is the caller's to give away. 2 windows of 3
    tokens, count 5:

        tokens by window and score    2 0 1 | 5 3 4
        place in the window           0 1 2 | 0 1 2
        kept (place < 5 // 2)         2 0   | 5 3

    Args:
        scores: [tiles, N].

    Returns:
        Whether each token is kept, [tiles, N], bool; equally many in every tile without padding.
    """
    windows = windows_of(grid, window, scores.device)
    nothing = torch.zeros_like(scores, dtype=torch.bool)
    if valid is None and windows.members is not None:
        return nothing.scatter_(1, _best_members(scores, windows.members, count // windows.count), True)
    by_window = _window_after_window(_best_first(scores, valid), windows)
    if valid is None:
        return nothing.scatter_(1, by_window, (windows.places < count // windows.count).expand_as(scores))
    in_window = scores.new_zeros(len(scores), windows.count, dtype=torch.int64).index_add_(1, windows.of_token, valid.long())
    shares = count // (in_window > 0).sum(dim=1, keepdim=True).clamp(min=1)  # [tiles, 1]
    return nothing.scatter_(1, by_window, windows.places < shares) & valid


def capped_scan(scores: torch.Tensor, grid: Grid, window: int, count: int) -> torch.Tensor:
    """Keeps the best `count` tokens, but of no window more than an equal share of `count`, rounded up.

    Where windows are smaller than their share it may keep fewer. No family whose tiles have padding shares so. 2 windows of 3
    tokens, count 3, so 2 of a window at most:

        tokens by score    2 0 1 4 5 3        0 1 2 are one window, 3 4 5 the other
        kept               2 0   4

    Args:
        scores: [tiles, N].

    Returns:
        Whether each token is kept, [tiles, N], bool; equally many in every tile.
    """
    windows = windows_of(grid, window, scores.device)
    by_window = _window_after_window(_best_first(scores, None), windows)
    cap = -(-count // windows.count)
    beyond = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, by_window, (windows.places >= cap).expand_as(scores))
    return global_scan(scores, beyond, min(count, sum(min(size, cap) for size in windows.sizes)))


def global_scan(
    scores: torch.Tensor, taken: torch.Tensor, count: int | torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Keeps the best `count` tokens of each tile that are not taken yet; padding only where nothing else is left.

    The paper sets the scores of taken tokens to zero; sorting them behind all others is the same, except that none is picked
    twice where the remaining scores are zero too.

    Args:
        scores: [tiles, N].
        taken: [tiles, N], bool; at most N - count in each tile.
        count: the same for all tiles, or [tiles, 1].

    Returns:
        Whether each token is kept now, [tiles, N], bool.
    """
    free_first = _behind(_best_first(scores, valid), taken)
    chosen = torch.arange(scores.shape[1], device=scores.device) < count
    return torch.zeros_like(taken).scatter_(1, free_first, chosen.expand_as(taken))


def keep_best(
    scores: torch.Tensor, count: int, *, first: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """The best `count` tokens of each tile, those marked in `first` before all others; padding only where nothing else is left.

    The paper sets the scores of tokens that the local scan has kept to zero and takes the best of the rest: with `first` the
    same tokens come in one sort.

    Args:
        scores: [tiles, N]; none is as large as a number can be.
        first: [tiles, N], bool; at most `count` in each tile, and no padding.

    Returns:
        [tiles, count], int64, ascending.
    """
    if first is not None:
        most = torch.inf if scores.is_floating_point() else torch.iinfo(scores.dtype).max
        scores = scores.masked_fill(first, most)
    return _best_first(scores, valid)[:, :count].sort(dim=1).values


def _best_members(scores: torch.Tensor, members: torch.Tensor, count: int) -> torch.Tensor:
    """The best `count` tokens of every window, [tiles, windows x count]."""
    best = scores[:, members].argsort(dim=2, descending=True, stable=True)[..., :count]
    return members.expand(len(scores), -1, -1).gather(2, best).flatten(1)


def _window_after_window(order: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The tokens of each window together, within it in `order` [tiles, N]."""
    return order.gather(1, windows.of_token[order].argsort(dim=1, stable=True))


def _best_first(scores: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The tokens by score, padding behind all others, [tiles, N], int64."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return order if valid is None else _behind(order, ~valid)


def _behind(order: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The order, but for the tokens marked in `last`, which come behind all others."""
    return order.gather(1, last.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
