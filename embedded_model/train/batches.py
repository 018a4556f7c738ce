"""Batches: drawn pictures, what each patch and each picture shows, and packed questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embedded_model.packing import IGNORED, Pack, Segment, pack
from embedded_model.questions import NO, ask_many
from embedded_model.scenes import COLORS, COLS, GRID, ROWS, SIZES, Scene, Split, Thing, draw_scene
from embedded_model.shapes import SHAPES
from embedded_model.tokenizer import VOCABULARY

# What a patch of an object shows, as words; a digit may be "no".
PATCH_WORDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "digit": (NO, *"0123456789"),
    "row": ROWS,
    "col": COLS,
}
TWO_TURNS_SHARE = 0.1  # of segments that hold two questions


@dataclass(frozen=True, slots=True)
class Labels:
    """What the pictures show."""

    patch: Tensor  # [pictures, 144, 6] int64: index in PATCH_WORDS, IGNORED on the ground
    words: Tensor  # [pictures, 144, 6] int64: the same as vocabulary ids, 0 on the ground
    center: Tensor  # [pictures, 144] int64: 1 where an object has its centre
    owner: Tensor  # [pictures, 144] int64: number of the object, -1 on the ground
    present: Tensor  # [pictures, 72] float32: pairs, shapes, colours and digits in the picture
    count: Tensor  # [pictures] int64: objects less one

    def to(self, device: torch.device) -> Labels:
        """The same labels on `device`."""
        fields = (self.patch, self.words, self.center, self.owner, self.present, self.count)
        return Labels(*(field.to(device) for field in fields))


def words_of(thing: Thing) -> tuple[str, ...]:
    """The words of a thing, in the order of PATCH_WORDS."""
    digit = NO if thing.digit is None else str(thing.digit)
    return (thing.shape, thing.color, thing.size, digit, *thing.place)


def labels_of(scenes: list[Scene]) -> Labels:
    """The labels of `scenes`."""
    patch = np.full((len(scenes), GRID * GRID, len(PATCH_WORDS)), IGNORED)
    words = np.zeros(patch.shape, dtype=np.int64)
    center = np.zeros(patch.shape[:2], dtype=np.int64)
    for row, scene in enumerate(scenes):
        owner = scene.owner.reshape(-1)
        for index, thing in enumerate(scene.things):
            said = words_of(thing)
            patch[row, owner == index] = [options.index(word) for options, word in zip(PATCH_WORDS.values(), said, strict=True)]
            words[row, owner == index] = [VOCABULARY[word] for word in said]
            center[row, thing.row * GRID + thing.col] = 1
    owners = np.stack([scene.owner.reshape(-1) for scene in scenes]).astype(np.int64)
    present = np.stack([_present(scene.things) for scene in scenes])
    count = np.array([len(scene.things) - 1 for scene in scenes])
    arrays = (patch, words, center, owners, present, count)
    return Labels(*(torch.from_numpy(array) for array in arrays))


def _present(things: tuple[Thing, ...]) -> np.ndarray:
    """[48 pairs + 6 shapes + 8 colours + 10 digits] float32, 1 where there is one."""
    colors = list(COLORS)
    pairs, shapes = np.zeros((len(SHAPES), len(colors))), np.zeros(len(SHAPES))
    shades, digits = np.zeros(len(colors)), np.zeros(10)
    for thing in things:
        shape, color = SHAPES.index(thing.shape), colors.index(thing.color)
        pairs[shape, color] = shapes[shape] = shades[color] = 1
        if thing.digit is not None:
            digits[thing.digit] = 1
    return np.concatenate([pairs.ravel(), shapes, shades, digits]).astype(np.float32)


def draw_scenes(rng: np.random.Generator, count: int, split: Split) -> list[Scene]:
    """`count` scenes of `split`."""
    return [draw_scene(rng, split) for _ in range(count)]


def ask_scenes(rng: np.random.Generator, scenes: list[Scene], questions: int) -> Pack:
    """Packed segments about each scene, `questions` in all a scene; some segments hold two turns."""
    return pack([_segments(rng, scene, questions) for scene in scenes])


def _segments(rng: np.random.Generator, scene: Scene, questions: int) -> list[Segment]:
    waiting = ask_many(scene.things, questions, rng)
    segments: list[Segment] = []
    while waiting:
        turns = 2 if rng.random() < TWO_TURNS_SHARE else 1
        segments.append(waiting[:turns])
        waiting = waiting[turns:]
    return segments
