"""Where tokens lie, from reports alone: cases worked by hand for each family."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vscan.errors import InvalidArgument
from vscan_client import Area, ImageReport, Kept, PickedBy, Place, PruneReport, SampledFrames, TileGrid
from vscan_client.show import View, patch_of, views_of

L, G, N, C = PickedBy.LOCAL, PickedBy.GLOBAL, PickedBy.NEWLINE, PickedBy.CLASS
WHOLE = Area(0, 0, 1, 1)


def report(
    tiles: list[TileGrid], kept: list[int], scans: list[PickedBy], merged: list[int] | None = None, frames: int = 0
) -> ImageReport:
    count = sum(tile.rows * tile.columns for tile in tiles)
    places = Kept(tuple(kept), tuple(scans), tuple(merged or ()), tuple(tiles), count)
    sampled = SampledFrames(tuple(map(float, range(frames))), float(frames), 1.0) if frames else None
    return ImageReport(bytes(32), count, len(kept), Place.ENCODED, places, sampled)


def edges(area: Area) -> tuple[float, float, float, float]:
    return (area.left, area.top, area.right, area.bottom)


def patches(view: View) -> list[tuple[float, float, float, float]]:
    return [edges(mark.patch) for mark in view.marks]


def test_a_place_of_a_grid() -> None:
    assert edges(patch_of(WHOLE, 2, 3, 4)) == pytest.approx((1 / 3, 1 / 2, 2 / 3, 1))
    assert edges(patch_of(Area(0.5, -1, 1.5, 3), 4, 2, 3)) == pytest.approx((1, 0, 1.5, 1))


def test_llava_one_tile_with_merges_and_survivors() -> None:
    #   0 1 2      kept 1 and 5; 0, 2 and 4 are in token 0, 3 is in token 1
    #   3 4 5
    one = report([TileGrid(2, 3, 2, WHOLE)], [1, 5], [L, G], [0, 0, 0, 1, 0, 1])
    layers = [PruneReport(2, 2, 2, ((0, 1),)), PruneReport(3, 2, 1, ((1,),))]
    (view,) = views_of(one, layers)
    assert (view.tile, view.frame, view.rows, view.columns, view.is_stated, view.hides) == (0, None, 2, 3, True, False)
    first, second = view.marks
    assert (first.token, first.row, first.column, first.picked_by, first.survives) == (0, 0, 1, L, (True, False))
    assert (second.token, second.row, second.column, second.picked_by, second.survives) == (1, 1, 2, G, (True, True))
    assert [edges(patch) for patch in first.merged] == [
        pytest.approx(box) for box in [(0, 0, 1 / 3, 0.5), (2 / 3, 0, 1, 0.5), (1 / 3, 0.5, 2 / 3, 1)]
    ]
    assert [edges(patch) for patch in second.merged] == [pytest.approx((0, 0.5, 1 / 3, 1))]


def test_a_crop_hides_and_padding_widens() -> None:
    (cropped,) = views_of(report([TileGrid(2, 2, 1, Area(0.25, 0, 0.75, 1))], [3], [L]))
    assert patches(cropped) == [pytest.approx((0.5, 0.5, 0.75, 1))]
    assert (cropped.hides, edges(cropped.window)) == (True, (0, 0, 1, 1))
    (padded,) = views_of(report([TileGrid(2, 2, 1, Area(0, -0.5, 1, 1.5))], [3], [L]))
    assert patches(padded) == [pytest.approx((0.5, 0.5, 1, 1.5))]
    assert (padded.hides, edges(padded.window)) == (False, (0, -0.5, 1, 1.5))


def test_llava_next_two_tiles_and_ends_of_rows() -> None:
    #   base 0 1    stitched 4  5  6  7  n=8     kept 2 of the base; 5, 12 and both ends of the stitched grid
    #        2 3             9 10 11 12 n=13
    base, stitched = TileGrid(2, 2, 1, WHOLE), TileGrid(2, 5, 4, Area(0, 0, 1.25, 1))
    one = report([base, stitched], [2, 5, 8, 12, 13], [L, G, N, L, N])
    whole, parts = views_of(one, [PruneReport(1, 5, 2, ((0, 2),))])
    assert patches(whole) == [pytest.approx((0, 0.5, 0.5, 1))]
    assert (parts.tile, parts.rows, parts.columns) == (1, 2, 4)
    assert edges(parts.area) == pytest.approx((0, 0, 1, 1))
    assert patches(parts) == [pytest.approx((0.25, 0, 0.5, 0.5)), pytest.approx((0.75, 0.5, 1, 1))]
    assert [(mark.token, mark.row, mark.column, mark.survives) for mark in parts.newlines] == [
        (2, 0, 4, (True,)),
        (4, 1, 4, (False,)),
    ]
    assert edges(parts.newlines[0].patch) == pytest.approx((1, 0, 1.25, 0.5))
    assert edges(parts.window) == pytest.approx((0, 0, 1.25, 1))


def test_qwen_two_frames_a_tile_and_an_odd_last_one() -> None:
    tiles = [TileGrid(1, 2, 1, WHOLE), TileGrid(1, 2, 2, WHOLE)]
    views = views_of(report(tiles, [1, 2, 3], [L, L, G], frames=3))
    assert [(view.tile, view.frame, len(view.marks)) for view in views] == [(0, 0, 1), (0, 1, 1), (1, 2, 2)]
    assert patches(views[1]) == [(0.5, 0, 1, 1)]


def test_video_llava_class_tokens_are_no_pictures() -> None:
    crop = Area(0.125, 0, 0.875, 1)
    tiles = [TileGrid(1, 1, 1), TileGrid(2, 2, 1, crop)] * 2
    views = views_of(report(tiles, [0, 4, 5, 6], [C, L, C, G], [0, 1, 1, 1, 1, 2, 3, 3, 3, 3], frames=2))
    assert [(view.tile, view.frame) for view in views] == [(1, 0), (3, 1)]
    assert patches(views[0]) == [pytest.approx((0.5, 0.5, 0.875, 1))]
    assert patches(views[1]) == [pytest.approx((0.125, 0, 0.5, 0.5))]
    assert [len(view.marks[0].merged) for view in views] == [3, 3]


def test_the_second_image_has_its_own_survivors() -> None:
    one = report([TileGrid(1, 2, 2, WHOLE)], [0, 1], [L, G])
    layers = [PruneReport(1, 4, 2, ((0,), (1,)))]
    assert [[mark.survives for mark in view.marks] for index in (0, 1) for view in views_of(one, layers, index)] == [
        [(True,), (False,)],
        [(False,), (True,)],
    ]


def test_without_areas_the_patches_share_the_picture() -> None:
    old = report([TileGrid(2, 2, 1), TileGrid(1, 3, 2)], [3, 4, 6], [L, G, N])
    whole, parts = views_of(old)
    assert not whole.is_stated
    assert not parts.is_stated
    assert patches(whole) == [(0.5, 0.5, 1, 1)]
    assert patches(parts) == [pytest.approx((0, 0, 0.5, 1))]


def test_a_tile_of_which_nothing_is_left_is_no_view() -> None:
    assert [view.tile for view in views_of(report([TileGrid(1, 1, 1, WHOLE), TileGrid(0, 3, 0)], [0], [L]))] == [0]


def test_an_answer_without_places_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="report_kept"):
        views_of(ImageReport(bytes(32), 4, 2, Place.ENCODED))


NAN, INFINITE = float("nan"), float("inf")
GRID = TileGrid(2, 3, 2, WHOLE)


@pytest.mark.parametrize(
    ("tiles", "kept", "scans", "merged", "field"),
    [
        ([GRID], [1], [L, G], None, "kept.kept_indices"),
        ([GRID], [1, 5], [L], None, "kept.kept_indices"),
        ([TileGrid(2, 3, 3, WHOLE)], [1, 5], [L, G], None, "kept.kept_indices"),
        ([TileGrid(2, 3, 2**32 - 1, WHOLE)], [1, 5], [L, G], None, "kept.kept_indices"),
        ([GRID], [1, 6], [L, G], None, "kept.tiles[0]"),
        ([GRID], [5, 1], [L, G], None, "kept.tiles[0]"),
        ([GRID], [1, 1], [L, G], None, "kept.tiles[0]"),
        ([GRID, TileGrid(1, 1, 1, WHOLE)], [1, 6, 6], [L, G, L], None, "kept.tiles[0]"),
        ([TileGrid(0, 0, 2, WHOLE)], [1, 5], [L, G], None, "kept.tiles[0]"),
        ([GRID], [1, 5], [L, G], [0, 0, 0, 1, 0], "kept.merged_into"),
        ([GRID], [1, 5], [L, G], [0, 0, 0, 1, 0, 2], "kept.merged_into"),
        ([TileGrid(2**32 - 1, 2**32 - 1, 2, WHOLE)], [1, 5], [L, G], None, "kept.tiles"),
        *(
            ([TileGrid(2, 3, 2, area)], [1, 5], [L, G], None, "kept.tiles[0].area")
            for area in (
                Area(0, 0, 0, 1),
                Area(0, 1, 1, 0),
                Area(NAN, 0, 1, 1),
                Area(0, 0, float("inf"), 1),
                Area(0, -1e300, 1, 1),
            )
        ),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(
    tiles: list[TileGrid], kept: list[int], scans: list[PickedBy], merged: list[int] | None, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        views_of(report(tiles, kept, scans, merged))
    assert caught.value.field == field


@pytest.mark.parametrize("survivors", [(), ((0, 2),)])
def test_survivors_that_are_missing_or_were_never_there_are_refused(survivors: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InvalidArgument, match="of layer 3" if not survivors else "past layer 3"):
        views_of(report([GRID], [1, 5], [L, G]), [PruneReport(3, 2, 1, survivors)])


def test_geometry_and_facts_need_no_pillow() -> None:
    program = "import sys; sys.modules['PIL'] = sys.modules['av'] = sys.modules['torch'] = None; import vscan_client.show"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""
