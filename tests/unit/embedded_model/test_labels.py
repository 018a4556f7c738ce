"""Labels say what the layout says, and oracle tokens say what the labels say."""

from collections.abc import Sequence

import pytest
import torch

from embedded_model.model import build_model
from embedded_model.packing import IGNORED
from embedded_model.scenes import COLORS, COLS, GRID, MAX_THINGS, ROWS, Letter, Scene, Split, Thing, seeded
from embedded_model.shapes import LETTERS, SHAPES
from embedded_model.tokenizer import VOCABULARY
from embedded_model.train.batches import (
    GROUND,
    LETTER,
    MOST_WORDS,
    PATCH_WORDS,
    PRESENT_SIZES,
    THING,
    Labels,
    ask_scenes,
    draw_scenes,
    labels_of,
)
from embedded_model.train.oracle import Oracle


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return draw_scenes(seeded(51), 60, Split.TRAIN)


@pytest.fixture(scope="module")
def labels(scenes: list[Scene]) -> Labels:
    return labels_of(scenes)


def owner_of(scene: Scene, patch: int) -> Thing | Letter | None:
    """The item that owns a patch, by the scene's own account."""
    number = int(scene.owner[patch // GRID, patch % GRID])
    if number < 0:
        return None
    return scene.layout.things[number] if number < MAX_THINGS else scene.layout.letters[number - MAX_THINGS]


def told(item: Thing | Letter | None) -> dict[str, str]:
    """What the patches of an item are to show."""
    if item is None:
        return {}
    place = {"row": ROWS[item.row // 4], "col": COLS[item.col // 4]}
    if isinstance(item, Letter):
        return {**place, "letter": item.letter}
    digit = "no" if item.digit is None else str(item.digit)
    return {"shape": item.shape, "color": item.color, "size": item.size, "digit": digit, **place}


def test_patches_are_labelled_with_what_their_item_shows(scenes: list[Scene], labels: Labels) -> None:
    kinds = {Thing: THING, Letter: LETTER, type(None): GROUND}
    for row, scene in enumerate(scenes):
        for patch in range(GRID * GRID):
            item = owner_of(scene, patch)
            said = {
                key: words[index]
                for (key, words), index in zip(PATCH_WORDS.items(), labels.patch[row, patch].tolist(), strict=True)
                if index != IGNORED
            }
            assert said == told(item)
            assert labels.kind[row, patch] == kinds[type(item)]
            assert labels.owner[row, patch] == scene.owner[patch // GRID, patch % GRID]
            centered = isinstance(item, Thing) and (item.row, item.col) == divmod(patch, GRID)
            assert labels.center[row, patch] == int(centered)


def test_words_are_the_labels_as_vocabulary(scenes: list[Scene], labels: Labels) -> None:
    for row, scene in enumerate(scenes):
        for patch in range(GRID * GRID):
            words = sorted(VOCABULARY[word] for word in told(owner_of(scene, patch)).values())
            assert sorted(labels.words[row, patch].tolist()) == [0] * (MOST_WORDS - len(words)) + words


def test_presence_and_count_are_those_of_the_layout(scenes: list[Scene], labels: Labels) -> None:
    colors = list(COLORS)
    names: dict[str, Sequence[object]] = {
        "pairs": [(shape, color) for shape in SHAPES for color in colors],
        "shapes": list(SHAPES),
        "colors": colors,
        "digits": list(range(10)),
        "letters": list(LETTERS),
    }
    for row, scene in enumerate(scenes):
        things = scene.layout.things
        groups = dict(zip(PRESENT_SIZES, torch.split(labels.present[row], list(PRESENT_SIZES.values())), strict=True))
        said = {key: {names[key][i] for i in group.nonzero().flatten()} for key, group in groups.items()}
        assert said == {
            "pairs": {(t.shape, t.color) for t in things},
            "shapes": {t.shape for t in things},
            "colors": {t.color for t in things},
            "digits": {t.digit for t in things} - {None},
            "letters": {mark.letter for mark in scene.layout.letters},
        }
        assert labels.count[row] == len(things) - 1


def test_every_kind_of_label_occurs(labels: Labels) -> None:
    for column, words in enumerate(PATCH_WORDS.values()):
        assert set(labels.patch[..., column].flatten().tolist()) == {IGNORED, *range(len(words))}
    assert set(labels.kind.flatten().tolist()) == {GROUND, THING, LETTER}


def test_packs_ask_the_wanted_number_of_questions(scenes: list[Scene]) -> None:
    pack = ask_scenes(seeded(52), scenes[:8], 16)
    colon, asked = VOCABULARY[":"], VOCABULARY["assistant"]
    assert ((pack.ids[:, 1:] == colon) & (pack.ids[:, :-1] == asked)).sum(dim=1).tolist() == [16] * 8
    segments = pack.segments.max(dim=1).values
    assert (segments <= 16).all()
    assert (segments < 16).any()  # some segments hold two turns


@torch.no_grad()
def test_oracle_tokens_are_sums_of_words_and_marks(scenes: list[Scene], labels: Labels) -> None:
    torch.manual_seed(0)
    oracle, embed = Oracle(), build_model().get_input_embeddings()
    tokens = oracle(embed, labels)
    assert tokens.shape == (len(scenes), GRID * GRID, 128)
    for row, scene in enumerate(scenes[:20]):
        for patch in range(GRID * GRID):
            item = owner_of(scene, patch)
            ids = torch.tensor([VOCABULARY[word] for word in told(item).values()], dtype=torch.int64)
            wanted = embed(ids).sum(dim=0) if item else oracle.oracle_ground
            if isinstance(item, Letter):
                wanted = wanted + oracle.oracle_letter
            if isinstance(item, Thing) and (item.row, item.col) == divmod(patch, GRID):
                wanted = wanted + oracle.oracle_center
            torch.testing.assert_close(tokens[row, patch], wanted)


@torch.no_grad()
def test_noise_on_oracle_tokens_has_the_stated_size(labels: Labels) -> None:
    torch.manual_seed(0)
    oracle, embed = Oracle(), build_model().get_input_embeddings()
    clean = oracle(embed, labels)
    noise = oracle(embed, labels, noise=0.1) - clean
    torch.testing.assert_close(noise.std(), 0.1 * clean.std(), rtol=0.02, atol=0)
    torch.testing.assert_close(noise.mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
