"""Scenes: up to six bright shapes on a dull ground, drawn with numpy and PIL alone.

The picture is 96 x 96 px and the patch 8 x 8 px, so the grid has 12 x 12 patches. Nine cells of
4 x 4 patches carry the position words; each holds one object at most, whose centre lies on one of
the four inner patches, so that no centre is near a cell border:

    patch column   0  1  2  3 | 4  5  6  7 | 8  9 10 11
    cell column      left     |   center   |   right
    centres           x  x    |    x  x    |    x  x
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from embedded_model.shapes import SHAPES, glyph, shape_mask

SIDE_PX = 96
PATCH_PX = 8
GRID = SIDE_PX // PATCH_PX  # patches per side
CELL = 4  # patches per side of a cell
MAX_THINGS = 6
DIGIT_SHARE = 0.6  # of objects that carry a digit
REPEAT_SHARE = 0.25  # of objects that repeat an earlier object's colour (and, apart, its shape)
COVERED = 0.2  # share of a patch that an object must cover to own it
HELD_OUT_PARTS = 4  # one scene description in so many is held out
JITTER_PX = 1

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 215, 50),
    "purple": (130, 50, 170),
    "orange": (245, 140, 30),
    "cyan": (60, 205, 220),
    "pink": (250, 150, 190),
}
SIZES: dict[str, int] = {"small": 7, "large": 11}  # radius in px
ROWS = ("top", "middle", "bottom")
COLS = ("left", "center", "right")
_DARK_INK = frozenset({"yellow", "orange", "cyan", "pink"})  # colours that carry a black digit


class Split(Enum):
    """The two disjoint sets of scenes; see `split_of`."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Thing:
    """One object; `row` and `col` are the patch of its centre, 0..11."""

    shape: str
    color: str
    size: str
    digit: int | None
    row: int
    col: int

    @property
    def place(self) -> tuple[str, str]:
        """The words for its cell, such as ("top", "left")."""
        return ROWS[self.row // CELL], COLS[self.col // CELL]


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn picture with what it shows."""

    image: Image.Image  # 96 x 96, RGB
    things: tuple[Thing, ...]
    owner: np.ndarray  # [12, 12] int8: index of the thing that covers the patch, -1 for ground


def split_of(things: tuple[Thing, ...]) -> Split:
    """The set that a scene belongs to, decided by its description alone.

    A description therefore never occurs in both sets, whatever seeds are drawn.
    """
    lines = sorted(f"{t.shape} {t.color} {t.size} {t.digit} {t.row} {t.col}" for t in things)
    held_out = zlib.crc32("\n".join(lines).encode()) % HELD_OUT_PARTS == 0
    return Split.HELD_OUT if held_out else Split.TRAIN


def draw_scene(seed: int | np.random.Generator, split: Split = Split.HELD_OUT) -> Scene:
    """Draws one scene of `split`; any integer is a seed, and the same seed gives the same scene."""
    rng = seed if isinstance(seed, np.random.Generator) else seeded(seed)
    things = _sample_things(rng)
    while split_of(things) is not split:
        things = _sample_things(rng)
    canvas = _ground(rng)
    owner = np.full((GRID, GRID), -1, dtype=np.int8)
    for index, thing in enumerate(things):
        _paint(canvas, owner, index, thing, rng)
    return Scene(Image.fromarray(canvas.clip(0, 255).astype(np.uint8)), things, owner)


def seeded(seed: int, *more: int) -> np.random.Generator:
    """A generator for any integers, negative ones too."""
    return np.random.default_rng([value % 2**64 for value in (seed, *more)])


def _sample_things(rng: np.random.Generator) -> tuple[Thing, ...]:
    count = int(rng.integers(1, MAX_THINGS + 1))
    cells = rng.permutation(9)[:count]
    things: list[Thing] = []
    for cell, (dy, dx) in zip(cells, rng.integers(1, 3, size=(count, 2)), strict=True):
        row, col = divmod(int(cell), 3)
        things.append(_sample_thing(rng, things, row * CELL + int(dy), col * CELL + int(dx)))
    return tuple(things)


def _sample_thing(rng: np.random.Generator, earlier: list[Thing], row: int, col: int) -> Thing:
    shape = SHAPES[rng.integers(len(SHAPES))]
    color = list(COLORS)[rng.integers(len(COLORS))]
    if earlier and rng.random() < REPEAT_SHARE:
        color = earlier[rng.integers(len(earlier))].color
    if earlier and rng.random() < REPEAT_SHARE:
        shape = earlier[rng.integers(len(earlier))].shape
    size = "large" if rng.random() < 0.5 else "small"
    digit = int(rng.integers(10)) if rng.random() < DIGIT_SHARE else None
    return Thing(shape, color, size, digit, row, col)


def _paint(canvas: np.ndarray, owner: np.ndarray, index: int, thing: Thing, rng: np.random.Generator) -> None:
    """Paints one thing on `canvas` [96, 96, 3] float32 and marks the patches it owns."""
    dy, dx = (int(v) for v in rng.integers(-JITTER_PX, JITTER_PX + 1, size=2))
    y = thing.row * PATCH_PX + PATCH_PX // 2 + dy
    x = thing.col * PATCH_PX + PATCH_PX // 2 + dx
    mask = shape_mask(thing.shape, SIZES[thing.size])
    half = mask.shape[0] // 2
    top, left = max(y - half, 0), max(x - half, 0)
    bottom, right = min(y + half, SIDE_PX), min(x + half, SIDE_PX)
    alpha = mask[top - y + half : bottom - y + half, left - x + half : right - x + half]
    ink = np.array(COLORS[thing.color], dtype=np.float32) + rng.uniform(-12, 12, 3)
    area = canvas[top:bottom, left:right]
    area += alpha[..., None] * (ink - area)
    if thing.digit is not None:
        spot = canvas[y - 3 : y + 4, x - 2 : x + 3]
        spot[glyph(thing.digit)] = 15.0 if thing.color in _DARK_INK else 245.0
    cover = np.zeros((SIDE_PX, SIDE_PX), dtype=np.float32)
    cover[top:bottom, left:right] = alpha
    share = cover.reshape(GRID, PATCH_PX, GRID, PATCH_PX).mean(axis=(1, 3))
    owner[share >= COVERED] = index
    owner[thing.row, thing.col] = index


@functools.cache
def _ramp() -> np.ndarray:
    """[96, 96] float32, 0 at the top left corner to 1 at the bottom right."""
    line = np.linspace(0, 1, SIDE_PX, dtype=np.float32)
    return (line[:, None] + line[None, :]) / 2


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A dull background [96, 96, 3] float32 of one of five kinds."""
    dull = rng.uniform(45, 175) + rng.uniform(-14, 14, 3)
    canvas = np.empty((SIDE_PX, SIDE_PX, 3), dtype=np.float32)
    canvas[:] = dull
    kind = rng.integers(5)  # 0: solid
    if kind == 1:
        canvas += _ramp()[..., None] * rng.uniform(-60, 60)
    elif kind == 2:
        canvas += rng.normal(0, 12, (SIDE_PX, SIDE_PX, 1))
    elif kind == 3:
        stripes = np.arange(SIDE_PX) // rng.integers(2, 9) % 2 * rng.uniform(12, 30)
        canvas += stripes[:, None, None] if rng.random() < 0.5 else stripes[None, :, None]
    elif kind == 4:
        ys, xs = rng.integers(0, SIDE_PX, size=(2, 60))
        canvas[ys, xs] += rng.uniform(-70, 70, (60, 1))
    return canvas
