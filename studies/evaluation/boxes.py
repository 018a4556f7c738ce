"""Boxes that a model names in its answer, and where they lie in the image.

Models name a box in units of their own; `BoxForm` says which. `in_image` takes them back to pixels of the image:

    a picture of 400 x 200 px, the box of its right half is 200 0 400 200

    padded-unit      padded to a square of 400, 100 px above and below         [0.5, 0.25, 1.0, 0.75]
    cropped-unit     the square of 200 in its middle, all that the model saw   [0.5, 0.0, 1.5, 1.0]
    unit             fractions of the picture's own sides                      [0.5, 0.0, 1.0, 1.0]
    thousand         the same in thousandths                                   [500, 0, 1000, 1000]
    resized-pixels   the encoder looked at 392 x 196 px (14 x 7 tokens of 28)  [196, 0, 392, 196]
    pixels           of the picture itself                                     [200, 0, 400, 200]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum

from vscan.errors import InvalidArgument

# Left, top, right, bottom.
Box = tuple[float, float, float, float]
# Width, height.
Size = tuple[int, int]
TOKEN_PIXELS = 28  # of a side of what Qwen2.5-VL makes one token of: 2 x 2 patches of 14
_NUMBER = r"\s*(-?(?:\d+\.?\d*|\.\d+))\s*"
_LIST = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_CORNERS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)")


class BoxForm(StrEnum):
    """In which units a model names a box."""

    RESIZED_PIXELS = "resized-pixels"
    PADDED_UNIT = "padded-unit"
    CROPPED_UNIT = "cropped-unit"
    UNIT = "unit"
    THOUSAND = "thousand"
    PIXELS = "pixels"


# LLaVA's instruction data, which the others use too, has fractions of the square that the model sees: its authors pad an image
# to one, and the processors of the checkpoints in transformers' form cut one out for LLaVA-1.5 and Video-LLaVA.
FORMS: Mapping[str, BoxForm] = {
    "llava": BoxForm.CROPPED_UNIT,
    "llava_next": BoxForm.PADDED_UNIT,
    "video_llava": BoxForm.CROPPED_UNIT,
    "qwen2_5_vl": BoxForm.RESIZED_PIXELS,
}


def form_of(family: str) -> BoxForm:
    """The form that a model of this family names boxes in. Raises InvalidArgument for one that is not known."""
    if family not in FORMS:
        raise InvalidArgument(
            "box-form", f"is needed: the server's family {family!r} has none by default", limit=", ".join(BoxForm)
        )
    return FORMS[family]


def parse_form(text: str) -> BoxForm:
    """The form of that name. Raises InvalidArgument."""
    try:
        return BoxForm(text)
    except ValueError:
        raise InvalidArgument("box-form", f"{text!r}", limit=", ".join(BoxForm)) from None


def find_boxes(answer: str) -> list[Box]:
    """Every box that an answer names, in the model's units: `[1, 2, 3, 4]`, in JSON too; where there is none `(1,2),(3,4)`."""
    for pattern in (_LIST, _CORNERS):
        if found := pattern.findall(answer):
            return [(float(left), float(top), float(right), float(bottom)) for left, top, right, bottom in found]
    return []


def in_image(box: Box, form: BoxForm, size: Size, tokens: int) -> Box:
    """The box in pixels of the image.

    Args:
        size: the image's.
        tokens: how many visual tokens it had before any reduction; only `resized-pixels` needs it.

    Raises:
        ValueError: no size of these sides makes so many tokens.
    """
    width, height = size
    if form is BoxForm.PADDED_UNIT:
        side = max(size)
        return _moved(_scaled(box, side, side), -((side - width) // 2), -((side - height) // 2))
    if form is BoxForm.CROPPED_UNIT:
        side = min(size)
        return _moved(_scaled(box, side, side), (width - side) / 2, (height - side) / 2)
    if form is BoxForm.UNIT:
        return _scaled(box, width, height)
    if form is BoxForm.THOUSAND:
        return _scaled(box, width / 1000, height / 1000)
    if form is BoxForm.RESIZED_PIXELS:
        seen_width, seen_height = resized_size(size, tokens)
        return _scaled(box, width / seen_width, height / seen_height)
    return box


def resized_size(size: Size, tokens: int) -> Size:
    """The size that Qwen2.5-VL's processor made of an image, from how many tokens came of it.

    The processor (`smart_resize` in transformers) rounds both sides to multiples of 28 px. Where that is too many pixels it
    makes both smaller by one factor and rounds down, where too few it makes them larger and rounds up. The deployment's bounds
    need not be known, since each number of tokens comes of one grid only:

        400 x 300 px   rounded     14 x 11 = 154 tokens   392 x 308
                       fewer       12 x  9 = 108 tokens   336 x 252

    Raises:
        ValueError: no grid of these sides has so many tokens.
    """
    width, height = size
    columns, rows = max(1, round(width / TOKEN_PIXELS)), max(1, round(height / TOKEN_PIXELS))
    if tokens == columns * rows:
        return columns * TOKEN_PIXELS, rows * TOKEN_PIXELS
    smaller = tokens < columns * rows
    for rows in (each for each in range(1, tokens + 1) if tokens % each == 0):
        columns = tokens // rows
        lowest, highest = zip(_scales(columns, width, smaller), _scales(rows, height, smaller), strict=True)
        if max(lowest) < min(highest):
            return columns * TOKEN_PIXELS, rows * TOKEN_PIXELS
    raise ValueError(f"an image of {width} x {height} px does not make {tokens} tokens of {TOKEN_PIXELS} px")


def _scales(count: int, side: int, smaller: bool) -> tuple[float, float]:
    """Between which factors a side gives that many tokens, rounded down (at least one) or up."""
    lower, upper = (count if count > 1 else 0, count + 1) if smaller else (count - 1, count)
    return lower / side, upper / side


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0 to 1; 0 where a box has no area, or its corners are swapped."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0 or not (has_area(one) and has_area(other)):
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def has_area(box: Box) -> bool:
    """Whether the second corner lies right of and below the first one, at a finite place."""
    return all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _scaled(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _moved(box: Box, across: float, down: float) -> Box:
    return box[0] + across, box[1] + down, box[2] + across, box[3] + down
