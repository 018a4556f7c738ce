"""Batches: drawn pictures, what each patch and each picture shows, and packed questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embedded_model.packing import IGNORED, Pack, Segment, pack
from embedded_model.questions import NO, ask_many
from embedded_model.scenes import (
    COLORS,
    COLS,
    GRID,
    MAX_THINGS,
    ROWS,
    SIZES,
    Layout,
    Letter,
    Scene,
    Split,
    Thing,
    draw_scene,
)
from embedded_model.shapes import LETTERS, SHAPES
from embedded_model.tokenizer import VOCABULARY

# What a patch of an object or a letter shows, as words; a digit may be "no".
PATCH_WORDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "digit": (NO, *"0123456789"),
    "row": ROWS,
    "col": COLS,
    "letter": LETTERS,
}
# What a picture shows, group by group, in the order of `Labels.present`.
PRESENT_SIZES = {
    "pairs": len(SHAPES) * len(COLORS),
    "shapes": len(SHAPES),
    "colors": len(COLORS),
    "digits": 10,
    "letters": len(LETTERS),
}
GROUND, THING, LETTER = 0, 1, 2  # what a patch belongs to
MOST_WORDS = 6  # of an item
TWO_TURNS_SHARE = 0.1  # of segments that hold two questions


@dataclass(frozen=True, slots=True)
class Labels:
    """What the pictures show."""

    patch: Tensor  # [pictures, 144, 7] int64: index in PATCH_WORDS, IGNORED where there is none
    words: Tensor  # [pictures, 144, 6] int64: the same as vocabulary ids, 0 where there is none
    kind: Tensor  # [pictures, 144] int64: GROUND, THING or LETTER
    center: Tensor  # [pictures, 144] int64: 1 where an object has its centre
    owner: Tensor  # [pictures, 144] int64: number of the object or letter, -1 on the ground
    present: Tensor  # [pictures, 80] float32: pairs, shapes, colours, digits, letters in the picture
    count: Tensor  # [pictures] int64: objects less one

    def to(self, device: torch.device) -> Labels:
        """The same labels on `device`."""
        fields = (self.patch, self.words, self.kind, self.center, self.owner, self.present, self.count)
        return Labels(*(field.to(device) for field in fields))


def words_of(item: Thing | Letter) -> dict[str, str]:
    """What the patches of an item show, by the keys of PATCH_WORDS."""
    row, col = item.place
    if isinstance(item, Letter):
        return {"row": row, "col": col, "letter": item.letter}
    digit = NO if item.digit is None else str(item.digit)
    return {"shape": item.shape, "color": item.color, "size": item.size, "digit": digit, "row": row, "col": col}


def labels_of(scenes: list[Scene]) -> Labels:
    """The labels of `scenes`."""
    patch = np.full((len(scenes), GRID * GRID, len(PATCH_WORDS)), IGNORED)
    words = np.zeros((*patch.shape[:2], MOST_WORDS), dtype=np.int64)
    center = np.zeros(patch.shape[:2], dtype=np.int64)
    for row, scene in enumerate(scenes):
        owner = scene.owner.reshape(-1)
        for index, item in _items(scene):
            said = words_of(item)
            patch[row, owner == index] = [_index(key, said) for key in PATCH_WORDS]
            words[row, owner == index, : len(said)] = [VOCABULARY[word] for word in said.values()]
        for thing in scene.layout.things:
            center[row, thing.row * GRID + thing.col] = 1
    owners = np.stack([scene.owner.reshape(-1) for scene in scenes]).astype(np.int64)
    kind = np.where(owners < 0, GROUND, np.where(owners < MAX_THINGS, THING, LETTER))
    present = np.stack([_present(scene.layout) for scene in scenes])
    count = np.array([len(scene.layout.things) - 1 for scene in scenes])
    arrays = (patch, words, kind, center, owners, present, count)
    return Labels(*(torch.from_numpy(array) for array in arrays))


def _items(scene: Scene) -> list[tuple[int, Thing | Letter]]:
    """The items of a scene with their numbers in `Scene.owner`."""
    return [*enumerate(scene.layout.things), *enumerate(scene.layout.letters, start=MAX_THINGS)]


def _index(key: str, said: dict[str, str]) -> int:
    return PATCH_WORDS[key].index(said[key]) if key in said else IGNORED


def _present(layout: Layout) -> np.ndarray:
    """[80] float32, 1 where the picture has such a one; the groups of PRESENT_SIZES."""
    colors = list(COLORS)
    groups = {name: np.zeros(size) for name, size in PRESENT_SIZES.items()}
    for thing in layout.things:
        shape, color = SHAPES.index(thing.shape), colors.index(thing.color)
        groups["pairs"][shape * len(colors) + color] = 1
        groups["shapes"][shape] = groups["colors"][color] = 1
        if thing.digit is not None:
            groups["digits"][thing.digit] = 1
    for mark in layout.letters:
        groups["letters"][LETTERS.index(mark.letter)] = 1
    return np.concatenate(list(groups.values())).astype(np.float32)


def draw_scenes(rng: np.random.Generator, count: int, split: Split) -> list[Scene]:
    """`count` scenes of `split`."""
    return [draw_scene(rng, split) for _ in range(count)]


def ask_scenes(rng: np.random.Generator, scenes: list[Scene], questions: int) -> Pack:
    """Packed segments about each scene, `questions` in all a scene; some segments hold two turns."""
    return pack([_segments(rng, scene, questions) for scene in scenes])


def _segments(rng: np.random.Generator, scene: Scene, questions: int) -> list[Segment]:
    waiting = ask_many(scene.layout, questions, rng)
    segments: list[Segment] = []
    while waiting:
        turns = 2 if rng.random() < TWO_TURNS_SHARE else 1
        segments.append(waiting[:turns])
        waiting = waiting[turns:]
    return segments
