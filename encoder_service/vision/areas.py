"""Which part of the original picture a model's pixels show: followed through padding, resizing and cropping.

a picture of 80 x 40, shortest side to 20, the middle 20 x 20 of it

Canvas.of(80, 40)                  left 0     right 1       80 x 40 pixels
       .resized(40, 20)            left 0     right 1       40 x 20
       .window(10, 0, 20, 20)      left 0.25  right 0.75    20 x 20
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.image_processing_utils import get_patch_output_size
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import ChannelDimension

from encoder_service.reduction.budget import Grid
from vscan.visual_tokens import Area

WHOLE = Area(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Pixels, and the area of the original that they show."""

    area: Area
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> Canvas:
        """The picture itself."""
        return cls(WHOLE, width, height)

    def resized(self, width: int, height: int) -> Canvas:
        """The same area in other pixels."""
        return Canvas(self.area, width, height)

    def window(self, left: int, top: int, width: int, height: int) -> Canvas:
        """Some of the pixels; beyond the canvas lies padding."""
        across = (self.area.right - self.area.left) / self.width
        down = (self.area.bottom - self.area.top) / self.height
        area = Area(
            left=self.area.left + left * across,
            top=self.area.top + top * down,
            right=self.area.left + (left + width) * across,
            bottom=self.area.top + (top + height) * down,
        )
        return Canvas(area, width, height)

    def centred(self, width: int, height: int) -> Canvas:
        """The middle; or, of a smaller canvas, itself amid padding. As transformers' `center_crop` rounds it."""
        return self.window((self.width - width) // 2, (self.height - height) // 2, width, height)

    def squared(self) -> Canvas:
        """Padded to a square, as LLaVA's image processor does it: less padding before than behind."""
        side = max(self.width, self.height)
        return self.window(-((side - self.width) // 2), -((side - self.height) // 2), side, side)

    def covered_by(self, grid: Grid, patch_pixels: int) -> Area:
        """What the patches of a grid show: what is left of a patch at the edges is not seen."""
        return self.window(0, 0, grid.columns * patch_pixels, grid.rows * patch_pixels).area


def processed(canvas: Canvas, processor: Any) -> Canvas | None:
    """What an image processor of CLIP's kind makes of a picture: padded, resized, cropped, each if it is set so.

    None where it resizes by a rule that is not known here: a picture is served without knowing where its patches lie.
    """
    if hasattr(processor, "pad_to_square") and processor.do_pad:  # LLaVA's own; elsewhere the switch means something else
        canvas = canvas.squared()
    if processor.do_resize:
        if (resized := _resized(canvas, processor.size)) is None:
            return None
        canvas = resized
    if processor.do_center_crop:
        canvas = canvas.centred(processor.crop_size["width"], processor.crop_size["height"])
    return canvas


def fitted(canvas: Canvas, width: int, height: int) -> Canvas:
    """As large as fits into a size, amid padding, as LLaVA-NeXT's image processor does it with the whole image."""
    down, across = get_patch_output_size(_shape(canvas), (height, width), input_data_format=ChannelDimension.FIRST)
    return canvas.resized(across, down).window(-((width - across) // 2), -((height - down) // 2), width, height)


def squeezed(canvas: Canvas, size: Any) -> Canvas:
    """In the size that is stated, or a square of the shortest side, whatever the aspect."""
    shortest = size.get("shortest_edge")
    return canvas.resized(size.get("width", shortest), size.get("height", shortest))


def _resized(canvas: Canvas, size: Any) -> Canvas | None:
    """A shortest side keeps the aspect, as transformers rounds it."""
    stated = {
        name for name in ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width") if size.get(name)
    }
    if stated == {"height", "width"}:
        return canvas.resized(size.get("width"), size.get("height"))
    if stated != {"shortest_edge"}:
        return None
    height, width = get_resize_output_image_size(
        _shape(canvas), size.get("shortest_edge"), default_to_square=False, input_data_format=ChannelDimension.FIRST
    )
    return canvas.resized(width, height)


def _shape(canvas: Canvas) -> np.ndarray:
    """A picture of this size, for functions that look at nothing else. It holds one byte."""
    return np.broadcast_to(np.uint8(0), (1, canvas.height, canvas.width))
