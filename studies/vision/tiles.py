"""Tiles, one after the other, as studies go through them: images, parts of images, frames of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import ScanSettings
from studies.inputs import Picture
from studies.vision_half import Seen
from vscan.errors import InvalidArgument

_MOST_DRAWN = 8  # columns of a figure


@dataclass(frozen=True, slots=True, eq=False)
class TileView:
    """One tile of what was looked at."""

    name: str  # of one or two lines
    index: int  # among those of its image or video
    image: Image.Image
    patches: Grid
    valid: torch.Tensor | None  # which of its tokens the scans rate, [N], bool; None: all, there is no padding
    source: Picture


def tiles_of(picture: Picture, seen: Seen) -> list[TileView]:
    """The tiles of an image or video, each with a name of its own."""
    kind = "tile" if seen.prepared.frames is None else "frame"
    images = seen.tiles
    several = len(images) > 1
    return [
        TileView(f"{picture.name}\n{kind} {index}" if several else picture.name, index, image, patches, valid, picture)
        for index, (image, patches, valid) in enumerate(zip(images, seen.patches, seen.valid, strict=True))
    ]


def by_token(values: torch.Tensor, patches: Grid, side: int) -> torch.Tensor:
    """The mean over the patches of each token: [patches] → [rows, columns] of tokens of `side` x `side` patches."""
    blocks = values.view(patches.rows // side, side, patches.columns // side, side)
    return blocks.mean(dim=(1, 3))


def drawn_layers(asked: Sequence[int] | None, count: int, scan: ScanSettings) -> tuple[int, ...]:
    """Which layers are drawn: those asked for, else all of a few, or some spread over them with those of the scans.

    Raises:
        InvalidArgument: a layer that is not run.
    """
    if asked is not None:
        if asked[-1] >= count:
            raise InvalidArgument("--layers", f"{asked[-1]}", limit=f"0 to {count - 1}, the layers that are served")
        return tuple(asked)
    if count <= _MOST_DRAWN:
        return tuple(range(count))
    chosen = {scan.shallow_layer, scan.deep_layer}
    for layer in _spread(count):
        if len(chosen) < _MOST_DRAWN:
            chosen.add(layer)
    return tuple(sorted(chosen))


def layer_title(layer: int, scan: ScanSettings) -> str:
    """`layer 5`, and which scan looks there."""
    roles = {scan.shallow_layer: "local scan", scan.deep_layer: "global scan"}
    return f"layer {layer}\n({roles[layer]})" if layer in roles else f"layer {layer}"


def _spread(count: int) -> Iterator[int]:
    """First, last, and between them halves, quarters and so on: 0 8 4 2 6 1 3 5 7."""
    yield from (0, count - 1)
    parts = 2
    while parts < 2 * count:
        yield from (round(part * (count - 1) / parts) for part in range(1, parts, 2))
        parts *= 2
