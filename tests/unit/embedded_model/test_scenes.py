"""Scenes: the same from the same seed, two disjoint sets, drawn as described, without torch."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from embedded_model import scenes
from embedded_model.clutter import cluttered_ground
from embedded_model.scenes import (
    CELL,
    COLORS,
    GRID,
    LETTER_CONTRAST,
    MAX_ITEMS,
    MAX_LETTERS,
    MAX_THINGS,
    PATCH_PX,
    SIDE_PX,
    Layout,
    Letter,
    Split,
    Thing,
    draw_scene,
    seeded,
    split_of,
)
from embedded_model.shapes import LETTERS, glyph


@dataclass(frozen=True, slots=True)
class Painted:
    """One stroke of painting: the canvas [96, 96, 3] before and after it."""

    before: np.ndarray
    after: np.ndarray

    def changed(self) -> np.ndarray:
        """The pixels [96, 96] that it changed."""
        changed: np.ndarray = (self.before != self.after).any(axis=-1)
        return changed

    def patches(self) -> set[tuple[int, int]]:
        """The patches that it changed."""
        return {(int(y) // PATCH_PX, int(x) // PATCH_PX) for y, x in np.argwhere(self.changed())}


def watch(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Painted]:
    """What the painter `name` of the scenes paints from now on."""
    real: Callable[..., None] = getattr(scenes, name)
    seen: list[Painted] = []

    def painter(canvas: np.ndarray, *rest: Any) -> None:
        before = canvas.copy()
        real(canvas, *rest)
        seen.append(Painted(before, canvas.copy()))

    monkeypatch.setattr(scenes, name, painter)
    return seen


def items_of(layout: Layout) -> list[Thing | Letter]:
    """Everything that questions ask about."""
    return [*layout.things, *layout.letters]


@pytest.mark.parametrize("seed", [0, 7, -3, 2**70])
def test_same_seed_draws_the_same_scene(seed: int) -> None:
    first, second = draw_scene(seed), draw_scene(seed)
    assert first.layout == second.layout
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.size == (SIDE_PX, SIDE_PX)
    assert (first.owner == second.owner).all()


def test_other_seeds_draw_other_scenes() -> None:
    pictures = {draw_scene(seed).image.tobytes() for seed in range(40)}
    assert len(pictures) == 40


def test_training_and_held_out_descriptions_are_disjoint() -> None:
    rng = seeded(1)
    train = {draw_scene(rng, Split.TRAIN).layout.describe() for _ in range(150)}
    held_out = {draw_scene(rng, Split.HELD_OUT).layout.describe() for _ in range(150)}
    assert len(train) > 140
    assert len(held_out) > 140
    assert not train & held_out


def test_split_depends_on_the_description_alone() -> None:
    for seed in range(20):
        for split in Split:
            layout = draw_scene(seed, split).layout
            turned = Layout(layout.things[::-1], layout.letters[::-1])
            assert split_of(turned) is split


def test_letters_are_part_of_the_description() -> None:
    things = (Thing("star", "red", "small", 3, 1, 1),)
    marked = [Layout(things, (Letter(name, 5, col),)) for name in LETTERS for col in (5, 6)]
    assert len({layout.describe() for layout in [Layout(things, ()), *marked]}) == 2 * len(LETTERS) + 1
    assert {split_of(layout) for layout in marked} == set(Split)


def test_items_have_cells_of_their_own_and_centers_off_the_borders() -> None:
    counts = set()
    for seed in range(120):
        layout = draw_scene(seed).layout
        items = items_of(layout)
        counts.add((len(layout.things), len(layout.letters)))
        assert len({item.place for item in items}) == len(items)
        assert all(index % CELL in (1, 2) for item in items for index in (item.row, item.col))
        assert len({letter.letter for letter in layout.letters}) == len(layout.letters)
    assert counts == {(t, n) for t in range(1, MAX_THINGS + 1) for n in range(MAX_LETTERS + 1)}


def test_a_thing_without_a_digit_has_its_color_at_its_center() -> None:
    checked = 0
    for seed in range(60):
        scene = draw_scene(seed)
        pixels = np.asarray(scene.image).astype(int)
        for thing in scene.layout.things:
            if thing.digit is None:
                at = pixels[thing.row * PATCH_PX + 4, thing.col * PATCH_PX + 4]
                assert np.abs(at - COLORS[thing.color]).max() <= 13  # the ink varies by 12
                checked += 1
    assert checked > 40


def test_each_item_owns_its_center_and_patches_of_its_cell_alone() -> None:
    for seed in range(60):
        scene = draw_scene(seed)
        assert scene.owner.shape == (GRID, GRID)
        things, letters = scene.layout.things, scene.layout.letters
        numbers = [*range(len(things)), *range(MAX_THINGS, MAX_THINGS + len(letters))]
        assert set(np.unique(scene.owner)) == {-1, *numbers}
        assert max(numbers) < MAX_ITEMS
        for number, item in zip(numbers, items_of(scene.layout), strict=True):
            assert scene.owner[item.row, item.col] == number
            owned = np.argwhere(np.equal(scene.owner, number)) // CELL
            assert (owned == (item.row // CELL, item.col // CELL)).all()


def test_a_letter_owns_one_patch_off_every_thing_and_is_written_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    written, things = watch(monkeypatch, "_paint_letter"), watch(monkeypatch, "_paint_thing")
    for seed in range(60):
        written.clear()
        things.clear()
        scene = draw_scene(seed)
        assert len(written) == len(scene.layout.letters)
        for number, (letter, stroke) in enumerate(zip(scene.layout.letters, written, strict=True), start=MAX_THINGS):
            assert (scene.owner == number).sum() == 1
            # a glyph of 7 px jitters by 1 px in a patch of 8, so it may lie in the row above too
            assert stroke.patches() <= {(letter.row, letter.col), (letter.row - 1, letter.col)}
            assert not any((letter.row, letter.col) in thing.patches() for thing in things)
            rows, cols = np.nonzero(stroke.changed())
            spot = stroke.changed()[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
            assert (spot == glyph(letter.letter)).all()


def test_letters_stand_out_from_their_ground_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    written = watch(monkeypatch, "_paint_letter")
    for seed in range(200):
        draw_scene(seed)
    contrasts = []
    for stroke in written:
        ink = stroke.changed()
        rows, cols = np.nonzero(ink)
        ground = stroke.before[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].mean(axis=(0, 1))
        shades = np.unique(stroke.after[ink], axis=0)
        assert len(shades) == 1
        difference = shades[0] - ground
        np.testing.assert_allclose(difference, difference[0], atol=1e-2)  # a shade of the ground: no hue of its own
        contrasts.append(abs(float(difference[0])))
    least, most = LETTER_CONTRAST
    assert len(contrasts) > 120
    assert least - 0.1 < min(contrasts) < least + 10
    assert most - 10 < max(contrasts) < most + 0.1


def test_distractors_lie_off_every_item_and_are_often_there(monkeypatch: pytest.MonkeyPatch) -> None:
    distractors = watch(monkeypatch, "distract")
    total = empty_cells = 0
    for seed in range(150):
        distractors.clear()
        scene = draw_scene(seed)
        items = items_of(scene.layout)
        taken = {(item.row // CELL, item.col // CELL) for item in items}
        for stroke in distractors:
            cells = {(row // CELL, col // CELL) for row, col in stroke.patches()}
            assert len(cells) == 1
            assert not cells & taken
            assert all(scene.owner[patch] == -1 for patch in stroke.patches())
        touched = {(int(row), int(col)) for row, col in np.argwhere(scene.distracts)}
        assert touched == set().union(*(stroke.patches() for stroke in distractors))
        total += len(distractors)
        empty_cells += 9 - len(items)
    assert 0.6 < total / empty_cells < 0.8


def test_distractors_are_saturated_and_the_ground_is_dull(monkeypatch: pytest.MonkeyPatch) -> None:
    distractors = watch(monkeypatch, "distract")
    for seed in range(40):
        draw_scene(seed)
    inks = {tuple(int(v) for v in pixel) for stroke in distractors for pixel in stroke.after[stroke.changed()]}
    assert inks == set(COLORS.values())
    for seed in range(40):
        ground = cluttered_ground(seeded(seed), SIDE_PX)
        assert np.ptp(ground, axis=-1).max() <= 28.1  # the channels differ by twice 14 at most
        assert 0 < ground.mean() < 255


def test_grounds_differ_in_texture() -> None:
    plain = [float(cluttered_ground(seeded(seed), SIDE_PX).std(axis=(0, 1)).max()) for seed in range(60)]
    assert min(plain) < 0.1  # some are one shade
    assert max(plain) > 12


def test_nothing_is_painted_over_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [watch(monkeypatch, name) for name in ("_paint_thing", "_paint_letter")]
    for seed in range(60):
        for strokes in items:
            strokes.clear()
        scene = draw_scene(seed)
        pixels = np.asarray(scene.image)
        for stroke in (*items[0], *items[1]):
            there = stroke.changed()
            assert there.any()
            assert (pixels[there] == stroke.after[there].clip(0, 255).astype(np.uint8)).all()


def test_place_words() -> None:
    assert Thing("star", "red", "small", None, row=10, col=5).place == ("bottom", "center")
    assert Letter("k", row=2, col=9).place == ("top", "right")


def test_drawing_needs_no_torch() -> None:
    program = (
        "import sys; import embedded_model; from embedded_model.album import draw_album; "
        "assert len(draw_album(-5, pictures=2)) == 2; "
        "assert embedded_model.checkpoint_dir().name == 'checkpoint'; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
