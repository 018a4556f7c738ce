"""Questions: answers derived again from the description, by reading the question's words."""

from collections import Counter

import pytest

from embedded_model.album import draw_album
from embedded_model.questions import FAMILIES, UNANSWERABLE_SHARE, ask, ask_many
from embedded_model.scenes import COLORS, COLS, ROWS, Thing, draw_scene, seeded
from embedded_model.shapes import SHAPES


def answer_again(text: str, things: tuple[Thing, ...]) -> str:
    """The answer from the words of the question alone; fails where the question is ambiguous."""
    words = text.rstrip("?").split()
    named = [
        t
        for t in things
        if all(t.color == w for w in words if w in COLORS)
        and all(t.shape == w for w in words if w in SHAPES)
        and all(t.row // 4 == ROWS.index(w) for w in words if w in ROWS)
        and all(t.col // 4 == COLS.index(w) for w in words if w in COLS)
    ]
    if words[0] == "is":
        return "yes" if named else "no"
    if words[0] == "how":
        return str(len(named))
    assert len(named) <= 1, f"ambiguous: {text}"
    if not named:
        return "no"
    if words[0] == "where":
        return f"{ROWS[named[0].row // 4]} {COLS[named[0].col // 4]}"
    value = getattr(named[0], words[1])
    return "no" if value is None else str(value)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_from_the_description(family: str) -> None:
    rng = seeded(11)
    for seed in range(120):
        things = draw_scene(seed).things
        question = ask(family, things, rng)
        assert question.family == family
        assert question.answer == answer_again(question.text, things), question


@pytest.mark.parametrize("family", ["attribute", "digit", "position"])
def test_some_questions_cannot_be_answered(family: str) -> None:
    rng = seeded(12)
    answers = [ask(family, draw_scene(seed).things, rng).answer for seed in range(200)]
    share = answers.count("no") / len(answers)
    assert UNANSWERABLE_SHARE * 0.6 < share < 0.8


@pytest.mark.parametrize("key", ["shape", "color"])
def test_questions_end_where_every_shape_or_many_colors_are_there(key: str) -> None:
    shades = list(COLORS)
    things = tuple(
        Thing(SHAPES[i] if key == "shape" else "star", shades[i] if key == "color" else "red", "small", None, 1, 1)
        for i in range(6)
    )
    texts = [(q.text, q.family) for q in ask_many(things, 100, seeded(13)) if q.family != "place"]
    assert {family for _, family in texts} == set(FAMILIES) - {"place"}


def test_album_is_deterministic_balanced_and_held_out() -> None:
    album = draw_album(-17, pictures=9, questions=4)
    again = draw_album(-17, pictures=9, questions=4)
    assert [p.questions for p in album] == [p.questions for p in again]
    assert [p.image.tobytes() for p in album] == [p.image.tobytes() for p in again]
    counts = Counter(q.family for picture in album for q in picture.questions)
    assert counts == dict.fromkeys(FAMILIES, 6)
    assert len({picture.name for picture in album}) == 9


def test_album_asks_nothing_twice_of_a_picture() -> None:
    for seed in range(10):
        for picture in draw_album(seed):
            texts = [q.text for q in picture.questions]
            assert len(set(texts)) == len(texts)
