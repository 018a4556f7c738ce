"""Boxes in answers: how they are found, where they lie, how far two overlap. All expected numbers are worked out by hand."""

from __future__ import annotations

import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from studies.evaluation.boxes import Box, BoxForm, find_boxes, form_of, has_area, in_image, overlap, resized_size
from vscan.errors import InvalidArgument

SQUARE: Box = (0, 0, 10, 10)


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        (SQUARE, 1.0),
        ((0, 0, 10, 5), 0.5),  # half of it: 50 / 100, exactly
        ((5, 0, 15, 10), 1 / 3),  # half of each: 50 / (100 + 100 - 50)
        ((5, 5, 15, 15), 1 / 7),  # a quarter of each: 25 / 175
        ((-10, -10, 30, 30), 1 / 16),  # all of it within a larger one: 100 / 1600
        ((10, 0, 20, 10), 0.0),  # they touch
        ((20, 20, 30, 30), 0.0),
        ((10, 10, 0, 0), 0.0),  # swapped corners
        ((10, 0, 0, 10), 0.0),
        ((0, 0, 10, 0), 0.0),  # a line
        ((0, 0, float("inf"), 10), 0.0),
    ],
)
def test_overlap_is_what_both_share_of_what_they_cover(other: Box, iou: float) -> None:
    assert overlap(SQUARE, other) == overlap(other, SQUARE) == pytest.approx(iou)
    assert (overlap(SQUARE, other) >= 0.5) == (iou >= 0.5)


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("[0.1, 0.25, 1, .5]", [(0.1, 0.25, 1.0, 0.5)]),
        ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "a dog"}\n]\n```', [(10, 20, 30, 40)]),
        ("It is at [[1,2,3,4]].", [(1, 2, 3, 4)]),
        ("[1, 2, 3, 4] or [5, 6, 7, 8]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("<ref>a dog</ref><box>(1,2),(3,4)</box>", [(1, 2, 3, 4)]),
        ("(0.1, 0.2) (0.3, 0.4)", [(0.1, 0.2, 0.3, 0.4)]),
        ("[-1, 2, 3, 4]", [(-1, 2, 3, 4)]),
        ("[1, 2, 3]", []),
        ("[1, 2, 3, 4, 5]", []),
        ("1, 2, 3, 4", []),
        ("the left one", []),
        ("", []),
    ],
)
def test_boxes_are_found(answer: str, boxes: list[Box]) -> None:
    assert find_boxes(answer) == boxes


# The right half of a picture twice as wide as high, and the lower half of one twice as high as wide.
WIDE, RIGHT = (400, 200), (200, 0, 400, 200)
HIGH, LOWER = (200, 400), (0, 200, 200, 400)


@pytest.mark.parametrize(
    ("form", "tokens", "right", "lower"),
    [
        (BoxForm.PIXELS, 0, RIGHT, LOWER),
        (BoxForm.UNIT, 0, (0.5, 0, 1, 1), (0, 0.5, 1, 1)),
        (BoxForm.THOUSAND, 0, (500, 0, 1000, 1000), (0, 500, 1000, 1000)),
        (BoxForm.PADDED_UNIT, 0, (0.5, 0.25, 1, 0.75), (0.25, 0.5, 0.75, 1)),  # 100 px of padding on both sides
        (BoxForm.CROPPED_UNIT, 0, (0.5, 0, 1.5, 1), (0, 0.5, 1, 1.5)),  # 100 px cut off on both sides
        (BoxForm.RESIZED_PIXELS, 14 * 7, (196, 0, 392, 196), (0, 196, 196, 392)),  # 392 x 196 px
        (BoxForm.RESIZED_PIXELS, 4 * 2, (56, 0, 112, 56), (0, 56, 56, 112)),  # a deployment that makes them smaller
        (BoxForm.RESIZED_PIXELS, 30 * 15, (420, 0, 840, 420), (0, 420, 420, 840)),  # or larger
    ],
)
def test_a_box_is_taken_back_to_the_image(form: BoxForm, tokens: int, right: Box, lower: Box) -> None:
    assert in_image(right, form, WIDE, tokens) == pytest.approx(RIGHT)
    assert in_image(lower, form, HIGH, tokens) == pytest.approx(LOWER)


def test_padding_is_split_as_llava_splits_it() -> None:
    """Of an odd number of pixels the smaller half comes first: 3 x 2 px get none above and one below."""
    assert in_image((0, 0, 1, 2 / 3), BoxForm.PADDED_UNIT, (3, 2), 0) == pytest.approx((0, 0, 3, 2))
    assert in_image((0, 0, 2 / 3, 1), BoxForm.PADDED_UNIT, (2, 3), 0) == pytest.approx((0, 0, 2, 3))


@pytest.mark.parametrize("bounds", [(56 * 56, 28 * 28 * 1280), (28 * 28 * 4, 28 * 28 * 64), (28 * 28 * 256, 28 * 28 * 16384)])
def test_the_size_that_the_encoder_saw_is_known_from_the_tokens(bounds: tuple[int, int]) -> None:
    """Compared with transformers, for bounds that make images smaller, larger, and leave them."""
    least, most = bounds
    ways = set()
    for width in (30, 99, 211, 336, 427, 500, 640, 1333):
        for height in (28, 71, 333, 480, 612, 640, 1999):
            high, wide = smart_resize(height, width, factor=28, min_pixels=least, max_pixels=most)
            tokens = (high // 28) * (wide // 28)
            assert resized_size((width, height), tokens) == (wide, high)
            plain = max(1, round(width / 28)) * max(1, round(height / 28))
            ways.add((tokens > plain) - (tokens < plain))
    assert len(ways) > 1


def test_a_number_of_tokens_that_no_size_makes_is_refused() -> None:
    with pytest.raises(ValueError, match="400 x 200 px does not make 97 tokens"):
        resized_size((400, 200), 97)
    with pytest.raises(ValueError, match="does not make 0 tokens"):
        resized_size((400, 200), 0)


def test_the_form_follows_the_family() -> None:
    assert form_of("qwen2_5_vl") is BoxForm.RESIZED_PIXELS
    assert form_of("llava") is BoxForm.CROPPED_UNIT
    assert form_of("llava_next") is BoxForm.PADDED_UNIT
    with pytest.raises(InvalidArgument, match="box-form: is needed: the server's family 'other' has none"):
        form_of("other")


def test_a_box_with_swapped_corners_has_no_area() -> None:
    assert has_area(SQUARE)
    assert not has_area((10, 0, 0, 10))
    assert not has_area((0.0, 0.0, float("nan"), 1.0))
