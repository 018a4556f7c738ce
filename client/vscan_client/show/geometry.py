"""Where visual tokens lie on the picture that they were made of: from an answer's report alone, without any pixels.

A view is one tile on one picture: LLaVA-NeXT has two of an image (the whole of it, and its parts), a video one for each frame.

    tile of 2 x 3 on the area 0 to 1      token at place 4 = row 1, column 1
                                          its patch: left 1/3, top 1/2, right 2/3, bottom 1
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vscan.errors import InvalidArgument
from vscan_client.answer import Area, ImageReport, Kept, PickedBy, PruneReport, TileGrid

WHOLE = Area(0.0, 0.0, 1.0, 1.0)
# Of one image or video; those of the longest videos that are served are fewer.
MAX_PLACES = 2**20
_A_LITTLE = 1e-3
_FARTHEST = 1e6  # an edge, in pictures: a line of pixels is padded to a square of thousands


@dataclass(frozen=True, slots=True)
class Mark:
    """A kept token on a view.

    Attributes:
        token: its row among the tokens of the image or video.
        row, column: of its patch in the grid.
        patch: where that lies on the picture.
        picked_by: the scan that kept it.
        merged: the patches that were merged into it.
        survives: for each pruning layer whether it went on.
    """

    token: int
    row: int
    column: int
    patch: Area
    picked_by: PickedBy
    merged: tuple[Area, ...]
    survives: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A tile on a picture.

    Attributes:
        tile: which of the report's grids.
        frame: which of the video's frames it is shown on; `None`: an image.
        rows, columns: of the grid, ends of rows not counted.
        area: the part of the picture that these patches show.
        is_stated: whether the server said where they lie; else the grid was taken for the whole picture.
        marks: of the tokens that were kept.
        newlines: of those that are ends of rows, which lie right of what the patches show.
    """

    tile: int
    frame: int | None
    rows: int
    columns: int
    area: Area
    is_stated: bool
    marks: tuple[Mark, ...]
    newlines: tuple[Mark, ...]

    @property
    def hides(self) -> bool:
        """Whether part of the picture is shown by no patch."""
        area = self.area
        return max(area.left, area.top, 1 - area.right, 1 - area.bottom) > _A_LITTLE

    @property
    def window(self) -> Area:
        """The picture and all patches, those of padding and ends of rows too."""
        edges = [WHOLE, self.area, *(mark.patch for mark in self.newlines)]
        return Area(
            min(each.left for each in edges),
            min(each.top for each in edges),
            max(each.right for each in edges),
            max(each.bottom for each in edges),
        )


def views_of(report: ImageReport, pruning: Sequence[PruneReport] = (), visual: int = 0) -> tuple[View, ...]:
    """What of an image or video can be drawn, picture after picture.

    Args:
        report: with its kept places (`report_kept=True`).
        pruning: the answer's, of which the survivors among the tokens of image or video number `visual` are marked.

    Raises:
        InvalidArgument: the report says nothing of kept places, or contradicts itself.
    """
    kept = report.kept
    if kept is None:
        raise InvalidArgument("answer", "its kept places were not reported", limit="asked with report_kept=True")
    _check(kept)
    survivors = [_survivors(layer, visual, len(kept.kept_indices)) for layer in pruning]
    tiles = [tile for tile in _tiles(kept) if not tile.is_class_token]
    frames = 0 if report.frames is None else len(report.frames.seconds)
    views = (
        _view(kept, tile, frame, survivors)
        for number, tile in enumerate(tiles)
        for frame in _frames(number, len(tiles), frames)
    )
    return tuple(view for view in views if view.rows and view.columns)


def _check(kept: Kept) -> None:
    """Raises InvalidArgument where a report's parts do not fit each other: it comes from a server, which is not believed."""
    places, tokens = sum(grid.rows * grid.columns for grid in kept.tiles), len(kept.kept_indices)
    if places > MAX_PLACES:
        raise InvalidArgument("kept.tiles", f"{places:,} patches", limit=f"{MAX_PLACES:,}, to be drawn")
    if not sum(grid.kept_count for grid in kept.tiles) == tokens == len(kept.picked_by):
        raise InvalidArgument("kept.kept_indices", "not as many as its grids and scans say")
    if kept.merged_into and len(kept.merged_into) != places:
        raise InvalidArgument("kept.merged_into", "not one for each patch")
    if not all(0 <= token < tokens for token in kept.merged_into):
        raise InvalidArgument("kept.merged_into", "a token that is not there")
    for index, tile in enumerate(_tiles(kept)):
        own = (tile.first_place - 1, *kept.kept_indices[tile.first_token : tile.first_token + tile.grid.kept_count])
        ascending = all(before < after for before, after in pairwise(own))
        if not ascending or own[-1] >= tile.first_place + tile.grid.rows * tile.grid.columns:
            raise InvalidArgument(f"kept.tiles[{index}]", "its kept places do not ascend within its grid")
        if tile.grid.area is not None and not _is_area(tile.grid.area):
            raise InvalidArgument(f"kept.tiles[{index}].area", "no area")


def _is_area(area: Area) -> bool:
    edges = (area.left, area.top, area.right, area.bottom)
    return all(abs(edge) < _FARTHEST for edge in edges) and area.left < area.right and area.top < area.bottom


def _survivors(layer: PruneReport, visual: int, tokens: int) -> frozenset[int]:
    field = f"pruning.survivors[{visual}]"
    if visual >= len(layer.survivors):
        raise InvalidArgument(field, f"not reported of layer {layer.layer}")
    if not all(0 <= token < tokens for token in layer.survivors[visual]):
        raise InvalidArgument(field, f"a token that is not there, past layer {layer.layer}")
    return frozenset(layer.survivors[visual])


def patch_of(area: Area, rows: int, columns: int, place: int) -> Area:
    """The part of an area that one place of a grid has, row-major."""
    row, column = divmod(place, columns)
    width, height = (area.right - area.left) / columns, (area.bottom - area.top) / rows
    left, top = area.left + column * width, area.top + row * height
    return Area(left, top, left + width, top + height)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A grid with where its tokens and places begin among all."""

    index: int
    grid: TileGrid
    first_token: int
    first_place: int
    scans: tuple[PickedBy, ...]

    @property
    def is_class_token(self) -> bool:
        return self.scans == (PickedBy.CLASS,)

    @property
    def ends_rows(self) -> bool:
        return PickedBy.NEWLINE in self.scans

    @property
    def area(self) -> Area:
        """Of the whole grid; where it is not stated, its patches share the picture."""
        if self.grid.area is not None:
            return self.grid.area
        ends = self.grid.columns - 1 if self.ends_rows else self.grid.columns
        return Area(0.0, 0.0, self.grid.columns / max(1, ends), 1.0)


def _tiles(kept: Kept) -> Iterator[_Tile]:
    token = place = 0
    for index, grid in enumerate(kept.tiles):
        yield _Tile(index, grid, token, place, kept.picked_by[token : token + grid.kept_count])
        token, place = token + grid.kept_count, place + grid.rows * grid.columns


def _frames(tile: int, tiles: int, frames: int) -> Sequence[int | None]:
    """The frames that a tile shows: all tiles of a video show as many, but for the last (Qwen2.5-VL: two)."""
    if not frames:
        return (None,)
    each = -(-frames // tiles)
    return range(tile * each, min(frames, (tile + 1) * each))


def _view(kept: Kept, tile: _Tile, frame: int | None, survivors: Sequence[frozenset[int]]) -> View:
    rows, columns, area = tile.grid.rows, tile.grid.columns, tile.area
    merged = _merged(kept, tile)
    marks = []
    for offset, scan in enumerate(tile.scans):
        token = tile.first_token + offset
        place = kept.kept_indices[token] - tile.first_place
        patch = patch_of(area, rows, columns, place)
        survives = tuple(token in layer for layer in survivors)
        marks.append(Mark(token, *divmod(place, columns), patch, scan, tuple(merged[token]), survives))
    ends = tile.ends_rows
    seen = patch_of(area, 1, columns, columns - 1).left if ends and columns > 1 else area.right
    return View(
        tile=tile.index,
        frame=frame,
        rows=rows,
        columns=columns - ends,
        area=Area(area.left, area.top, seen, area.bottom),
        is_stated=tile.grid.area is not None,
        marks=tuple(mark for mark in marks if mark.picked_by is not PickedBy.NEWLINE),
        newlines=tuple(mark for mark in marks if mark.picked_by is PickedBy.NEWLINE),
    )


def _merged(kept: Kept, tile: _Tile) -> dict[int, list[Area]]:
    """For each token the patches of the tile that it holds beside its own."""
    held: dict[int, list[Area]] = defaultdict(list)
    if not kept.merged_into:
        return held
    rows, columns = tile.grid.rows, tile.grid.columns
    own = set(kept.kept_indices[tile.first_token : tile.first_token + tile.grid.kept_count])
    for place in range(rows * columns):
        if tile.first_place + place not in own:
            held[kept.merged_into[tile.first_place + place]].append(patch_of(tile.area, rows, columns, place))
    return held
