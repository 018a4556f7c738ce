"""Masks of the six shapes, and bitmaps of the ten digits and the eight letters."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
_FINE = 8  # each mask is drawn so many times larger, then averaged, for smooth edges
_STAR_INNER = 0.5  # inner radius of the star over its outer radius
_SQUARE = 0.88  # half side of the square over the radius
_CROSS = 0.4  # half arm width of the cross over the radius

# 5 x 7 pixels a digit, one row of bits a number, most significant bit on the left.
_GLYPHS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_LETTERS = {
    "a": (14, 17, 17, 31, 17, 17, 17),
    "c": (14, 17, 16, 16, 16, 17, 14),
    "e": (31, 16, 16, 30, 16, 16, 31),
    "k": (17, 18, 20, 24, 20, 18, 17),
    "l": (16, 16, 16, 16, 16, 16, 31),
    "t": (31, 4, 4, 4, 4, 4, 4),
    "u": (17, 17, 17, 17, 17, 17, 14),
    "x": (17, 17, 10, 4, 10, 17, 17),
}
LETTERS = tuple(_LETTERS)


@functools.cache
def shape_mask(shape: str, radius_px: int) -> np.ndarray:
    """The coverage of each pixel, [2 (radius + 1)] squared float32 in 0..1, centred."""
    side = 2 * (radius_px + 1)
    large = Image.new("L", (side * _FINE, side * _FINE), 0)
    middle, radius = side * _FINE / 2, radius_px * _FINE
    for outline in _outlines(shape):
        points = [(middle + radius * x, middle + radius * y) for x, y in outline]
        ImageDraw.Draw(large).polygon(points, fill=255)
    small = large.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


@functools.cache
def glyph(sign: int | str) -> np.ndarray:
    """The pixels of a digit 0..9 or of one of LETTERS, [7, 5] bool."""
    bitmap = _LETTERS[sign] if isinstance(sign, str) else _GLYPHS[sign]
    rows = [[bool(bits >> (4 - col) & 1) for col in range(5)] for bits in bitmap]
    return np.array(rows)


def _outlines(shape: str) -> list[list[tuple[float, float]]]:
    """Polygons in units of the radius, y downwards."""
    if shape == "circle":
        return [_ring([1.0] * 48)]
    if shape == "star":
        return [_ring([1.0, _STAR_INNER] * 5)]
    if shape == "diamond":
        return [_ring([1.0] * 4)]
    if shape == "triangle":
        return [[(0.0, -1.0), (1.0, 0.95), (-1.0, 0.95)]]
    if shape == "square":
        return [_box(_SQUARE, _SQUARE)]
    if shape == "cross":
        return [_box(1.0, _CROSS), _box(_CROSS, 1.0)]
    raise ValueError(f"unknown shape: {shape}")


def _ring(radii: list[float]) -> list[tuple[float, float]]:
    """Points at equal angles around the centre, the first one straight up."""
    turn = 2 * math.pi / len(radii)
    return [(r * math.sin(i * turn), -r * math.cos(i * turn)) for i, r in enumerate(radii)]


def _box(half_width: float, half_height: float) -> list[tuple[float, float]]:
    w, h = half_width, half_height
    return [(-w, -h), (w, -h), (w, h), (-w, h)]
