"""How a frame of a video is to be turned, as its container says. With Pillow and PyAV, which the frame comes from."""

from __future__ import annotations

import struct
from typing import Any

from av.sidedata.sidedata import Type as SideData
from PIL import Image

# Of the display matrix's a, b, c, d (x' = ax + cy, y' = bx + dy, y downwards) the signs: how a picture is to be turned.
_TURNS = {
    (1, 0, 0, 1): None,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


def upright(picture: Image.Image, frame: Any) -> Image.Image:
    """A frame's picture as people see it; by quarters of a turn, and mirrored, if the container says so."""
    turn = _turn(frame)
    return picture if turn is None else picture.transpose(turn)


def _turn(frame: Any) -> Image.Transpose | None:
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    largest = max(map(abs, (a, b, c, d)))
    return _TURNS.get(tuple((value > largest // 2) - (value < -(largest // 2)) for value in (a, b, c, d)))
