"""Scenes: the same from the same seed, two disjoint sets, drawn as described, without torch."""

import subprocess
import sys

import numpy as np
import pytest

from embedded_model.scenes import COLORS, GRID, PATCH_PX, SIDE_PX, Split, Thing, draw_scene, seeded, split_of


@pytest.mark.parametrize("seed", [0, 7, -3, 2**70])
def test_same_seed_draws_the_same_scene(seed: int) -> None:
    first, second = draw_scene(seed), draw_scene(seed)
    assert first.things == second.things
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.size == (SIDE_PX, SIDE_PX)


def test_other_seeds_draw_other_scenes() -> None:
    pictures = {draw_scene(seed).image.tobytes() for seed in range(40)}
    assert len(pictures) == 40


def test_training_and_held_out_descriptions_are_disjoint() -> None:
    rng = seeded(1)
    train = {frozenset(draw_scene(rng, Split.TRAIN).things) for _ in range(150)}
    held_out = {frozenset(draw_scene(rng, Split.HELD_OUT).things) for _ in range(150)}
    assert len(train) > 100
    assert len(held_out) > 100
    assert not train & held_out


def test_split_depends_on_the_description_alone() -> None:
    for seed in range(20):
        for split in Split:
            things = draw_scene(seed, split).things
            assert split_of(tuple(reversed(things))) is split


def test_things_have_cells_of_their_own_and_centers_off_the_borders() -> None:
    for seed in range(60):
        things = draw_scene(seed).things
        assert 1 <= len(things) <= 6
        assert len({thing.place for thing in things}) == len(things)
        assert all(index % 4 in (1, 2) for thing in things for index in (thing.row, thing.col))


def test_a_thing_without_a_digit_has_its_color_at_its_center() -> None:
    checked = 0
    for seed in range(60):
        scene = draw_scene(seed)
        pixels = np.asarray(scene.image).astype(int)
        for thing in scene.things:
            if thing.digit is None:
                at = pixels[thing.row * PATCH_PX + 4, thing.col * PATCH_PX + 4]
                assert np.abs(at - COLORS[thing.color]).max() <= 13  # the ink varies by 12
                checked += 1
    assert checked > 40


def test_owner_marks_the_center_of_each_thing() -> None:
    for seed in range(40):
        scene = draw_scene(seed)
        assert scene.owner.shape == (GRID, GRID)
        assert set(np.unique(scene.owner)) - {-1} == set(range(len(scene.things)))
        for index, thing in enumerate(scene.things):
            assert scene.owner[thing.row, thing.col] == index


def test_place_words() -> None:
    thing = Thing("star", "red", "small", None, row=10, col=5)
    assert thing.place == ("bottom", "center")


def test_drawing_needs_no_torch() -> None:
    program = (
        "import sys; import embedded_model; from embedded_model.album import draw_album; "
        "assert len(draw_album(-5, pictures=2)) == 2; "
        "assert embedded_model.checkpoint_dir().name == 'checkpoint'; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
