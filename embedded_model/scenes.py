"""Scenes: bright shapes, small letters and saturated distractors on a cluttered, dull ground.

The picture is 96 x 96 px and the patch 8 x 8 px, so the grid has 12 x 12 patches. Nine cells of
4 x 4 patches carry the position words; each holds one object, one letter or one distractor at
most. The centre of an object or letter lies on one of the four inner patches, so that no centre is
near a cell border:

    patch column   0  1  2  3 | 4  5  6  7 | 8  9 10 11
    cell column      left     |   center   |   right
    centres           x  x    |    x  x    |    x  x

Objects are what a caption would name. A letter is one faint patch on the ground, away from every
object: the kind of detail that attention to salient things misses. Distractors and clutter draw
attention and answer no question.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from embedded_model.clutter import cluttered_ground, distract
from embedded_model.shapes import LETTERS, SHAPES, glyph, shape_mask

SIDE_PX = 96
PATCH_PX = 8
GRID = SIDE_PX // PATCH_PX  # patches per side
CELL = 4  # patches per side of a cell
CELLS = 9
MAX_THINGS = 6
MAX_LETTERS = 2
MAX_ITEMS = MAX_THINGS + MAX_LETTERS
DISTRACTOR_SHARE = 0.7  # of the cells that hold neither object nor letter
DIGIT_SHARE = 0.6  # of objects that carry a digit
REPEAT_SHARE = 0.25  # of objects that repeat an earlier object's colour (and, apart, its shape)
COVERED = 0.2  # share of a patch that an object must cover to own it
HELD_OUT_PARTS = 4  # one scene description in so many is held out
JITTER_PX = 1
LETTER_CONTRAST = (55.0, 95.0)  # least and most difference in brightness, of 255, from the ground; less where that clips

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
Words = tuple[str, str]
_DARK_INK = frozenset({"yellow", "orange", "cyan", "pink"})  # colours that carry a black digit


class Split(Enum):
    """The two disjoint sets of scenes; see `split_of`."""

    TRAIN = "train"
    HELD_OUT = "held-out"


def place_words(row: int, col: int) -> Words:
    """The words for the cell of a patch, such as ("top", "left")."""
    return ROWS[row // CELL], COLS[col // CELL]


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
    def place(self) -> Words:
        """The words for its cell."""
        return place_words(self.row, self.col)


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter on the ground; `row` and `col` are its patch, 0..11."""

    letter: str
    row: int
    col: int

    @property
    def place(self) -> Words:
        """The words for its cell."""
        return place_words(self.row, self.col)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a scene shows, as far as questions ask: one object or more, and letters."""

    things: tuple[Thing, ...]
    letters: tuple[Letter, ...]

    def describe(self) -> str:
        """One line an item, sorted: equal for layouts that show the same."""
        lines = [f"{t.shape} {t.color} {t.size} {t.digit} {t.row} {t.col}" for t in self.things]
        lines += [f"{mark.letter} {mark.row} {mark.col}" for mark in self.letters]
        return "\n".join(sorted(lines))


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn picture with what it shows."""

    image: Image.Image  # 96 x 96, RGB
    layout: Layout
    owner: np.ndarray  # [12, 12] int8: the thing that covers the patch, MAX_THINGS + letter, or -1
    distracts: np.ndarray  # [12, 12] bool: a distractor has pixels in the patch


def split_of(layout: Layout) -> Split:
    """The set that a scene belongs to, decided by its description alone.

    A description therefore never occurs in both sets, whatever seeds are drawn.
    """
    held_out = zlib.crc32(layout.describe().encode()) % HELD_OUT_PARTS == 0
    return Split.HELD_OUT if held_out else Split.TRAIN


def draw_scene(seed: int | np.random.Generator, split: Split = Split.HELD_OUT) -> Scene:
    """Draws one scene of `split`; any integer is a seed, and the same seed gives the same scene."""
    rng = seed if isinstance(seed, np.random.Generator) else seeded(seed)
    layout, empty = draw_layout(rng, split)
    canvas = cluttered_ground(rng, SIDE_PX)
    distracts = _distract(canvas, empty, rng)
    owner = np.full((GRID, GRID), -1, dtype=np.int8)
    for index, thing in enumerate(layout.things):
        _paint_thing(canvas, owner, index, thing, rng)
    for index, letter in enumerate(layout.letters):
        _paint_letter(canvas, letter, rng)
        owner[letter.row, letter.col] = MAX_THINGS + index
    return Scene(Image.fromarray(canvas.clip(0, 255).astype(np.uint8)), layout, owner, distracts)


def draw_layout(rng: np.random.Generator, split: Split) -> tuple[Layout, list[int]]:
    """What a scene of `split` shows, and its cells (0..8, row-major) that are left empty."""
    layout, empty = _sample_layout(rng)
    while split_of(layout) is not split:
        layout, empty = _sample_layout(rng)
    return layout, empty


def seeded(seed: int, *more: int) -> np.random.Generator:
    """A generator for any integers, negative ones too."""
    return np.random.default_rng([value % 2**64 for value in (seed, *more)])


def _sample_layout(rng: np.random.Generator) -> tuple[Layout, list[int]]:
    """A layout, and the cells that it leaves empty."""
    count = int(rng.integers(1, MAX_THINGS + 1))
    letters = int(rng.integers(0, MAX_LETTERS + 1))
    cells = [int(cell) for cell in rng.permutation(CELLS)]
    spots = [_inner_patch(rng, cell) for cell in cells[: count + letters]]
    things: list[Thing] = []
    for row, col in spots[:count]:
        things.append(_sample_thing(rng, things, row, col))
    names = rng.choice(len(LETTERS), size=letters, replace=False)
    marks = tuple(Letter(LETTERS[n], row, col) for n, (row, col) in zip(names, spots[count:], strict=True))
    return Layout(tuple(things), marks), cells[count + letters :]


def _inner_patch(rng: np.random.Generator, cell: int) -> tuple[int, int]:
    row, col = divmod(cell, 3)
    down, right = (int(v) for v in rng.integers(1, 3, size=2))
    return row * CELL + down, col * CELL + right


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


def _distract(canvas: np.ndarray, cells: list[int], rng: np.random.Generator) -> np.ndarray:
    """Paints a distractor in some of `cells`; returns the patches that it has pixels in, [12, 12] bool."""
    before = canvas.copy()
    for cell in cells:
        if rng.random() < DISTRACTOR_SHARE:
            y, x = (int(v) * CELL * PATCH_PX + int(rng.integers(10, 22)) for v in divmod(cell, 3))
            distract(canvas, y, x, list(COLORS.values()), rng)
    changed = (canvas != before).reshape(GRID, PATCH_PX, GRID, PATCH_PX, 3)
    touched: np.ndarray = changed.any(axis=(1, 3, 4))
    return touched


def _jittered(row: int, col: int, rng: np.random.Generator) -> tuple[int, int]:
    """The pixel near the centre of a patch that an item is painted around."""
    dy, dx = (int(v) for v in rng.integers(-JITTER_PX, JITTER_PX + 1, size=2))
    return row * PATCH_PX + PATCH_PX // 2 + dy, col * PATCH_PX + PATCH_PX // 2 + dx


def _paint_thing(canvas: np.ndarray, owner: np.ndarray, index: int, thing: Thing, rng: np.random.Generator) -> None:
    """Paints one thing on `canvas` [96, 96, 3] float32 and marks the patches it owns."""
    y, x = _jittered(thing.row, thing.col, rng)
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


def _paint_letter(canvas: np.ndarray, letter: Letter, rng: np.random.Generator) -> None:
    """Writes one letter in a shade of the ground, lighter on a dark ground and darker on a light one."""
    y, x = _jittered(letter.row, letter.col, rng)
    spot = canvas[y - 4 : y + 3, x - 2 : x + 3]
    shade = spot.mean(axis=(0, 1))
    contrast = rng.uniform(*LETTER_CONTRAST)
    spot[glyph(letter.letter)] = shade + (contrast if shade.mean() < 110 else -contrast)
