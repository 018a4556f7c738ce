"""What a scene shows besides its objects and letters: a dull, cluttered ground and saturated distractors.

Nothing here is asked about. Clutter is dull and lies everywhere, beneath the objects too; a
distractor is as bright as an object, has no shape, and lies in a cell that has nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Ink = tuple[int, int, int]
_STROKES = 8  # at most, on one ground
_CONFETTI = (8, 20)  # least and most pieces
_SCRIBBLE_PX = 7  # half the side of the box of a scribble


def cluttered_ground(rng: Rng, side: int) -> np.ndarray:
    """A dull background [side, side, 3] float32: one of seven textures, some with strokes and blots."""
    dull = rng.uniform(45, 175) + rng.uniform(-14, 14, 3)
    canvas = np.empty((side, side, 3), dtype=np.float32)
    canvas[:] = dull
    texture = _TEXTURES[rng.integers(len(_TEXTURES))]
    canvas += np.broadcast_to(texture(rng, side), (side, side))[..., None]
    if rng.random() < 0.6:
        canvas += _strokes(rng, side)[..., None]
    return canvas


def distract(canvas: np.ndarray, row: int, col: int, inks: list[Ink], rng: Rng) -> None:
    """Paints one distractor of at most 18 px around pixel (`row`, `col`) of `canvas` [side, side, 3]."""
    kind = rng.integers(3)
    if kind == 0:
        _confetti(canvas, row, col, inks, rng)
    elif kind == 1:
        _scribble(canvas, row, col, inks[rng.integers(len(inks))], rng)
    else:
        _ribbons(canvas, row, col, inks, rng)


def _solid(rng: Rng, side: int) -> np.ndarray:
    return np.zeros((side, side))


def _gradient(rng: Rng, side: int) -> np.ndarray:
    return _ramp(side) * rng.uniform(-60, 60)


def _noise(rng: Rng, side: int) -> np.ndarray:
    return rng.normal(0, 12, (side, side))


def _stripes(rng: Rng, side: int) -> np.ndarray:
    line = np.arange(side) // rng.integers(2, 9) % 2 * rng.uniform(12, 34)
    stripes: np.ndarray = line[:, None] if rng.random() < 0.5 else line[None, :]
    return stripes


def _checks(rng: Rng, side: int) -> np.ndarray:
    line = np.arange(side) // rng.integers(3, 9) % 2
    return (line[:, None] ^ line[None, :]) * rng.uniform(12, 34)


def _specks(rng: Rng, side: int) -> np.ndarray:
    ground = np.zeros((side, side))
    ys, xs = rng.integers(0, side, size=(2, 80))
    ground[ys, xs] = rng.uniform(-70, 70, 80)
    return ground


def _waves(rng: Rng, side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side]
    turn = rng.uniform(0, np.pi)
    along = (np.cos(turn) * x + np.sin(turn) * y) / rng.uniform(2, 6)
    waves: np.ndarray = np.sin(along) * rng.uniform(8, 20)
    return waves


_TEXTURES: tuple[Callable[[Rng, int], np.ndarray], ...] = (
    _solid,
    _gradient,
    _noise,
    _stripes,
    _checks,
    _specks,
    _waves,
)


@functools.cache
def _ramp(side: int) -> np.ndarray:
    """[side, side] float32, 0 at the top left corner to 1 at the bottom right."""
    line = np.linspace(0, 1, side, dtype=np.float32)
    return (line[:, None] + line[None, :]) / 2


def _strokes(rng: Rng, side: int) -> np.ndarray:
    """Dull lines and blots, [side, side] brightness to add."""
    sheet = Image.new("L", (side, side), 128)
    draw = ImageDraw.Draw(sheet)
    for _ in range(int(rng.integers(2, _STROKES + 1))):
        shade = int(128 + rng.uniform(-40, 40))
        x0, y0, x1, y1 = (int(v) for v in rng.integers(0, side, 4))
        if rng.random() < 0.7:
            draw.line((x0, y0, x1, y1), fill=shade, width=int(rng.integers(1, 3)))
        else:
            reach = int(rng.integers(3, 9))
            draw.ellipse((x0, y0, x0 + reach, y0 + int(rng.integers(3, 9))), fill=shade)
    return np.asarray(sheet, dtype=np.float32) - 128


def _confetti(canvas: np.ndarray, row: int, col: int, inks: list[Ink], rng: Rng) -> None:
    for _ in range(int(rng.integers(*_CONFETTI))):
        y, x = row + int(rng.integers(-8, 8)), col + int(rng.integers(-8, 8))
        canvas[y : y + int(rng.integers(1, 4)), x : x + int(rng.integers(1, 4))] = inks[rng.integers(len(inks))]


def _scribble(canvas: np.ndarray, row: int, col: int, ink: Ink, rng: Rng) -> None:
    side = 2 * _SCRIBBLE_PX + 3
    sheet = Image.new("L", (side, side), 0)
    points = [(int(x), int(y)) for x, y in rng.integers(1, side - 1, size=(int(rng.integers(4, 9)), 2))]
    ImageDraw.Draw(sheet).line(points, fill=255, width=int(rng.integers(1, 3)))
    top, left = row - side // 2, col - side // 2
    canvas[top : top + side, left : left + side][np.asarray(sheet) > 0] = ink


def _ribbons(canvas: np.ndarray, row: int, col: int, inks: list[Ink], rng: Rng) -> None:
    upright = rng.random() < 0.5
    for offset in range(-8, 8, int(rng.integers(4, 8))):
        ink, thick = inks[rng.integers(len(inks))], int(rng.integers(1, 4))
        if upright:
            canvas[row - 8 : row + 8, col + offset : col + offset + thick] = ink
        else:
            canvas[row + offset : row + offset + thick, col - 8 : col + 8] = ink
