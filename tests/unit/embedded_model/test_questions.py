"""Questions: answers derived again from the description, by reading the question's words."""

from collections import Counter

import pytest

from embedded_model.album import draw_album
from embedded_model.questions import FAMILIES, NO, UNANSWERABLE_SHARE, WORDS, Question, ask, ask_many
from embedded_model.scenes import COLORS, COLS, ROWS, Layout, Letter, Thing, draw_scene, seeded
from embedded_model.shapes import LETTERS, SHAPES

SCENES = 120


def fits(item: Thing | Letter, words: list[str]) -> bool:
    """Whether an item is what the words say, as far as they say anything of such an item."""
    told = {"color": COLORS, "shape": SHAPES, "letter": LETTERS}
    return (
        all(getattr(item, key) == w for key, known in told.items() if hasattr(item, key) for w in words if w in known)
        and all(item.row // 4 == ROWS.index(w) for w in words if w in ROWS)
        and all(item.col // 4 == COLS.index(w) for w in words if w in COLS)
    )


def answer_again(text: str, layout: Layout) -> str:
    """The answer from the words of the question alone; fails where the question is ambiguous."""
    words = text.rstrip("?").split()
    items: tuple[Thing | Letter, ...] = layout.letters if "letter" in words else layout.things
    named = [item for item in items if fits(item, words)]
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


def asked_of_scenes(family: str, seed: int, count: int) -> list[tuple[Layout, Question]]:
    """One question of `family` about each of `count` scenes."""
    rng = seeded(seed)
    layouts = [draw_scene(number).layout for number in range(count)]
    return [(layout, ask(family, layout, rng)) for layout in layouts]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_from_the_description(family: str) -> None:
    for layout, question in asked_of_scenes(family, 11, SCENES):
        assert question.family == family
        assert question.answer == answer_again(question.text, layout), question


@pytest.mark.parametrize("family", FAMILIES)
def test_every_word_is_in_the_vocabulary(family: str) -> None:
    for _, question in asked_of_scenes(family, 14, SCENES):
        assert set(question.text.replace("?", " ?").split()) <= set(WORDS)
        assert set(question.answer.split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("family", "most"),
    [("attribute", 0.5), ("digit", 0.75), ("position", 0.5), ("place", 0.3), ("letter", 0.65)],
)
def test_some_questions_cannot_be_answered(family: str, most: float) -> None:
    answers = [question.answer for _, question in asked_of_scenes(family, 12, 300)]
    # of the places drawn at random by the unanswerable share, a part holds an object
    least = UNANSWERABLE_SHARE * (0.4 if family == "place" else 0.8)
    assert least < answers.count(NO) / len(answers) < most


def test_exist_is_answered_yes_as_often_as_no() -> None:
    answers = Counter(question.answer for _, question in asked_of_scenes("exist", 15, 300))
    assert set(answers) == {"yes", NO}
    assert 0.4 < answers["yes"] / 300 < 0.6


def layout_of_each_kind() -> Layout:
    """An object, a letter, and seven cells without either."""
    return Layout((Thing("star", "red", "small", 3, row=1, col=2),), (Letter("k", row=5, col=6),))


@pytest.mark.parametrize(
    ("family", "place", "answers"),
    [
        ("place", "top left", {"red", "star"}),
        ("place", "middle center", {NO}),  # a letter alone
        ("place", "bottom right", {NO}),  # a distractor or nothing
        ("letter", "top left", {NO}),  # an object alone
        ("letter", "middle center", {"k"}),
        ("letter", "bottom right", {NO}),
    ],
)
def test_a_place_is_asked_for_objects_or_letters_apart(family: str, place: str, answers: set[str]) -> None:
    rng = seeded(16)
    asked = [ask(family, layout_of_each_kind(), rng) for _ in range(600)]
    assert {q.answer for q in asked if q.text.endswith(f"at the {place}?")} == answers


def test_a_letter_is_found_by_its_name_and_others_are_not_there() -> None:
    rng = seeded(17)
    asked = [ask("letter", layout_of_each_kind(), rng) for _ in range(600)]
    answers = {q.text: q.answer for q in asked if q.text.startswith("where")}
    places = dict.fromkeys(LETTERS, NO) | {"k": "middle center"}
    assert answers == {f"where is the letter {name}?": place for name, place in places.items()}


def test_letters_and_their_places_do_not_change_what_is_asked_of_objects() -> None:
    both = layout_of_each_kind()
    bare = Layout(both.things, ())
    for family in set(FAMILIES) - {"letter"}:
        assert [ask(family, both, seeded(n)) for n in range(50)] == [ask(family, bare, seeded(n)) for n in range(50)]


@pytest.mark.parametrize("key", ["shape", "color"])
def test_questions_end_where_every_shape_or_many_colors_are_there(key: str) -> None:
    shades = list(COLORS)
    things = tuple(
        Thing(SHAPES[i] if key == "shape" else "star", shades[i] if key == "color" else "red", "small", None, 1, 1)
        for i in range(6)
    )
    assert {q.family for q in ask_many(Layout(things, ()), 100, seeded(13))} == set(FAMILIES)


def test_album_is_deterministic_balanced_and_held_out() -> None:
    album = draw_album(-17, pictures=14, questions=3)
    again = draw_album(-17, pictures=14, questions=3)
    assert [p.questions for p in album] == [p.questions for p in again]
    assert [p.image.tobytes() for p in album] == [p.image.tobytes() for p in again]
    counts = Counter(q.family for picture in album for q in picture.questions)
    assert counts == dict.fromkeys(FAMILIES, 6)
    assert len({picture.name for picture in album}) == 14


def test_album_asks_nothing_twice_of_a_picture() -> None:
    for seed in range(10):
        for picture in draw_album(seed):
            texts = [q.text for q in picture.questions]
            assert len(set(texts)) == len(texts)
