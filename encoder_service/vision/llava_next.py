"""LLaVA-NeXT: the whole image as one tile, and its parts at a higher resolution ("anyres") as up to several more.

    tiles        base | a b     stitched   a a b b n    un-padded   a a b b n     n: image_newline, ends every row
                      | c d                a a b b n                c c d d n
                                           c c d d n
                                           c c d d n

Tiles are scanned and merged one by one. What the language model receives is the base tile, then the rows of the stitched grid
without what lies in padding. As a value these are two tiles: the base's grid, and the stitched one with its newline column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from PIL import Image
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from encoder_service.reduction.budget import Grid
from encoder_service.reduction.reduce import ReducedTiles
from encoder_service.vision.areas import Canvas, fitted, processed, squeezed
from encoder_service.vision.base import Family, PreparedImage, in_order
from encoder_service.vision.clip import ClipParts, ClipVision, check_preprocessing, load_clip_parts
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError
from vscan.visual_tokens import Area, PickedBy, VisualTokens

_PROCESSORS: dict[str, Any] = {"LlavaNextImageProcessor": LlavaNextImageProcessorPil}
_NEWLINE_NAMES = ("image_newline", "model.image_newline")
_NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AnyresImage(PreparedImage):
    """An image whose tiles after the first are parts of it."""

    # [rows, columns] of the stitched, un-padded grid: which token of the parts, tile after tile, stands there.
    places: torch.Tensor


class LlavaNextVision(ClipVision):
    """The vision half of LLaVA-NeXT."""

    family = "llava_next"

    def __init__(self, parts: ClipParts, *, newline: torch.Tensor, pinpoints: Sequence[Sequence[int]]) -> None:
        super().__init__(parts)
        self._newline = newline
        self._newline_on_cpu = newline.cpu()
        self._pinpoints = [list(pinpoint) for pinpoint in pinpoints]

    def preprocess(self, image: Image.Image) -> AnyresImage:
        """The checkpoint's own image processor, on the CPU: the base tile first, then the parts."""
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        tile_pixels = self._tower.config.image_size
        places = stitched_places(image.height, image.width, pinpoints=self._pinpoints, grid=self.grid, tile_pixels=tile_pixels)
        grids = (self.grid,) * len(pixels)
        valid = (None, *seen_of(places, grids[1:]))
        return AnyresImage(pixels=pixels, grids=grids, valid=valid, places=places, areas=self._areas(image, places))

    def assemble(self, image: PreparedImage, tiles: Sequence[ReducedTiles]) -> VisualTokens:
        """The base tile, then the parts stitched and un-padded, as transformers' own model packs them."""
        assert isinstance(image, AnyresImage)
        rows, columns = image.places.shape
        parts = stitch(in_order(image.grids[1:], tiles[1:]), image.places, self._newline_on_cpu)
        return in_order((self.grid, Grid(rows, columns + 1)), (tiles[0], parts), areas=image.areas)

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """And the newline."""
        return chain(super().named_tensors(), [("image_newline", self._newline)])

    def configuration(self) -> Mapping[str, Any]:
        """And the resolutions, as the model's own configuration has them."""
        return {**super().configuration(), "image_grid_pinpoints": self._pinpoints}

    def _areas(self, image: Image.Image, places: torch.Tensor) -> tuple[Area | None, Area | None]:
        """Of the base tile, which is the whole image squeezed into a square, and of the stitched grid with its newlines."""
        whole = Canvas.of(*image.size)
        base = self._area(self._processor, squeezed(whole, self._processor.size))
        return base, self._stitched_area(whole, places)

    def _stitched_area(self, whole: Canvas, places: torch.Tensor) -> Area | None:
        """None where nothing is left, or parts lie apart: they are cropped once more, or their patches do not fill them."""
        side, patch = self._tower.config.image_size, self._patch_pixels
        part = Canvas.of(side, side)
        if not places.numel() or side % patch or processed(part, self._processor) != part:
            return None
        down, across = get_anyres_image_grid_shape((whole.height, whole.width), self._pinpoints, side)
        rows, columns = places.shape
        top, left = (down * self.grid.rows - rows) // 2, (across * self.grid.columns - columns) // 2
        stitched = fitted(whole, across * side, down * side)
        return stitched.window(left * patch, top * patch, (columns + 1) * patch, rows * patch).area


def stitched_places(height: int, width: int, *, pinpoints: list[list[int]], grid: Grid, tile_pixels: int) -> torch.Tensor:
    """Where the tokens of an image's parts stand: stitched, then un-padded to its aspect.

    Args:
        height, width: of the image, in pixels.
        pinpoints: resolutions to choose from, [height, width] in pixels.
        grid: of a tile.

    Returns:
        [rows, columns], int64: for each place its token, counted part after part.
    """
    down, across = get_anyres_image_grid_shape((height, width), pinpoints, tile_pixels)
    tokens = torch.arange(down * across * grid.tokens).view(down, across, grid.rows, grid.columns)
    whole = tokens.permute(0, 2, 1, 3).reshape(1, down * grid.rows, across * grid.columns)
    places: torch.Tensor = unpad_image(whole, (height, width))[0]
    return places


def seen_of(places: torch.Tensor, grids: Sequence[Grid]) -> list[torch.Tensor | None]:
    """For each part which of its tokens un-padding leaves, [N], bool; None where it leaves all."""
    counts = [grid.tokens for grid in grids]
    seen = torch.zeros(sum(counts), dtype=torch.bool)
    seen[places.flatten()] = True
    return [None if bool(mask.all()) else mask for mask in torch.split(seen, counts)]


def stitch(parts: VisualTokens, places: torch.Tensor, newline: torch.Tensor) -> ReducedTiles:
    """Parts of an image as one tile, with a newline at the end of each row, which is always kept.

    Two parts of 1 x 3 tokens side by side, of which un-padding leaves the columns 1 to 4:

        parts        0 1 2 | 3 4 5     kept 0 2 3, a row each
        places         1 2   3 4
        stitched       0 1   2 3  4    kept 1 2 4: the parts' rows 1 and 2, and the newline

    Kept tokens that lie in padding are dropped. If others were merged into them, `merged_into` is None.

    Args:
        parts: tile after tile.
        places: [rows, columns] of the un-padded grid: the token of the parts that stands there.
        newline: [hidden].
    """
    rows, columns = places.shape
    spots = torch.arange(rows * (columns + 1)).view(rows, columns + 1)
    spot_of = torch.full((parts.unreduced_count,), _NOWHERE)
    spot_of[places] = spots[:, :-1]
    newlines = parts.kept_count + torch.arange(rows)  # as rows behind those of the parts
    spot_of_row = torch.cat([spot_of[parts.kept_indices], spots[:, -1]])
    chosen = spot_of_row.argsort()[int((spot_of_row == _NOWHERE).sum()) :]  # rows in the order of their spots
    picked_by = torch.cat([parts.picked_by, torch.full((rows,), int(PickedBy.NEWLINE), dtype=torch.uint8)])
    merged_into = None
    if parts.merged_into is not None:
        held_by = torch.cat([parts.merged_into[places], newlines[:, None]], dim=1).flatten()
        merged_into = _renumbered(held_by, chosen, len(spot_of_row))
    return ReducedTiles(
        tokens=torch.cat([parts.tokens, newline.expand(rows, -1)])[chosen][None],
        kept=spot_of_row[chosen][None],
        picked_by=picked_by[chosen][None],
        merged_into=merged_into,
    )


def _renumbered(held_by: torch.Tensor, chosen: torch.Tensor, count: int) -> torch.Tensor | None:
    """Rows by their places among the chosen ones, [1, N]; None if one was not chosen."""
    place_of = torch.full((count,), _NOWHERE)
    place_of[chosen] = torch.arange(len(chosen))
    places = place_of[held_by]
    return None if bool((places == _NOWHERE).any()) else places[None]


def load(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, **settings: Any) -> LlavaNextVision:
    """Loads the half; see `load_clip_parts` for settings and errors."""
    parts = load_clip_parts(checkpoint, processors=_PROCESSORS, dtype=dtype, device=device, **settings)
    _check_pinpoints(checkpoint, parts)
    name = next((name for name in _NEWLINE_NAMES if name in checkpoint.files), _NEWLINE_NAMES[0])
    newline = checkpoint.load_tensors([name], dtype=dtype, device=device)[name]
    if newline.shape != (parts.hidden_size,):
        raise CheckpointError(f"{checkpoint.directory}: {name} is {list(newline.shape)} where [{parts.hidden_size}] is needed")
    model = LlavaNextVision(parts, newline=newline, pinpoints=checkpoint.config.image_grid_pinpoints)
    check_preprocessing(checkpoint, model)
    return model


def _check_pinpoints(checkpoint: Checkpoint, parts: ClipParts) -> None:
    """The model and its image processor must cut alike, into whole tiles."""
    stated, cut = checkpoint.config.image_grid_pinpoints, parts.processor.image_grid_pinpoints
    if [list(pinpoint) for pinpoint in stated] != [list(pinpoint) for pinpoint in cut]:
        raise CheckpointError(f"{checkpoint.directory}: image_grid_pinpoints of config.json and of the image processor differ")
    side = checkpoint.config.vision_config.image_size
    odd = [pinpoint for pinpoint in stated if len(pinpoint) != 2 or any(not p or p % side for p in pinpoint)]
    if odd or not stated:
        raise CheckpointError(f"{checkpoint.directory}: image_grid_pinpoints {odd[:1]}; multiples of {side} are needed")


FAMILY = Family(model_type="llava_next", load=load)
