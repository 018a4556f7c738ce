"""Questions about a scene, by family, each with its one right answer.

| family | example | answer |
|---|---|---|
| exist | is there any red circle? | yes, no |
| attribute | what color is the star? | a colour, a shape, a size, or no |
| count | how many red objects are there? | 0 to 6 |
| digit | what digit is on the red circle? | 0 to 9, or no |
| position | where is the red circle? | top left, or no |
| place | what color is the object at the top left? | a colour, a shape, or no |
| letter | what letter is at the top left? where is the letter k? | a letter, a place, or no |

"no" also answers a question about an object or a letter that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedded_model.scenes import COLORS, COLS, ROWS, SIZES, Layout, Thing, Words
from embedded_model.shapes import LETTERS, SHAPES

Things = Sequence[Thing]
Keys = tuple[str, ...]
UNANSWERABLE_SHARE = 0.25
NO = "no"
_VALUES: dict[str, Sequence[str]] = {"color": tuple(COLORS), "shape": SHAPES}
_NAMING: tuple[Keys, ...] = (("color",), ("shape",), ("color", "shape"), ("color", "shape"))


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its answer; `text` and `answer` are lower case."""

    family: str
    text: str
    answer: str


def matching(things: Things, **attributes: str) -> list[Thing]:
    """The things that have all the given attributes (shape, color, size)."""
    return [t for t in things if all(getattr(t, k) == v for k, v in attributes.items())]


def ask(family: str, layout: Layout, rng: np.random.Generator) -> Question:
    """One question of `family` about `layout`."""
    text, answer = _letter(layout, rng) if family == "letter" else _ASKERS[family](layout.things, rng)
    return Question(family, text, answer)


def ask_many(layout: Layout, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` questions of families drawn by weight; a text may occur twice."""
    families = rng.choice(len(FAMILIES), size=count, p=_WEIGHTS)
    return [ask(FAMILIES[f], layout, rng) for f in families]


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _any_thing(things: Things, rng: np.random.Generator) -> Thing:
    return things[int(rng.integers(len(things)))]


def _name(attributes: dict[str, str]) -> str:
    """Words for attributes: "red circle", "circle", "red object", "object"."""
    color, shape = attributes.get("color", ""), attributes.get("shape", "object")
    return f"{color} {shape}".strip()


def _some_keys(rng: np.random.Generator) -> Keys:
    return _NAMING[rng.integers(len(_NAMING))]


def _present(things: Things, keys: Keys, rng: np.random.Generator) -> dict[str, str]:
    """The attributes `keys` of one of the things."""
    thing = _any_thing(things, rng)
    return {key: getattr(thing, key) for key in keys}


def _all_seen(things: Things, keys: Keys) -> bool:
    """Whether every value of a single attribute is there, so that none can be absent."""
    return len(keys) == 1 and len({getattr(t, keys[0]) for t in things}) == len(_VALUES[keys[0]])


def _absent(things: Things, keys: Keys, rng: np.random.Generator) -> dict[str, str]:
    """Values for `keys` that no thing has together; some pairs mix two things that are there."""
    keys = ("color", "shape") if _all_seen(things, keys) else keys
    while True:
        wanted = {key: _pick(rng, _VALUES[key]) for key in keys}
        if len(keys) == 2:
            kept = rng.random()
            wanted |= _present(things, ("color",), rng) if kept < 0.7 else {}
            wanted |= _present(things, ("shape",), rng) if kept > 0.3 else {}
        if not matching(things, **wanted):
            return wanted


def _one_or_none(things: Things, keys: Keys, rng: np.random.Generator) -> dict[str, str]:
    """Values for `keys` that name exactly one thing, or none for the unanswerable share."""
    if rng.random() >= UNANSWERABLE_SHARE or _all_seen(things, keys):
        for _ in range(6):
            wanted = _present(things, keys, rng)
            if len(matching(things, **wanted)) == 1:
                return wanted
    return _absent(things, keys, rng)


def _exist(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    there, keys = rng.random() < 0.5, _some_keys(rng)
    wanted = _present(things, keys, rng) if there else _absent(things, keys, rng)
    return f"is there any {_name(wanted)}?", "yes" if there else NO


def _attribute(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    key = _pick(rng, ("color", "shape", "size"))
    keys = tuple(other for other in ("color", "shape") if other != key)
    wanted = _one_or_none(things, keys, rng)
    found = matching(things, **wanted)
    return f"what {key} is the {_name(wanted)}?", getattr(found[0], key) if found else NO


def _count(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    draw = rng.random()
    if draw < 0.25:
        wanted: dict[str, str] = {}
    elif draw < 0.35:
        wanted = _absent(things, _some_keys(rng), rng)
    else:
        wanted = _present(things, _some_keys(rng), rng)
    name = f"{wanted.get('color', '')} {wanted.get('shape', '')} objects"
    text = " ".join(f"how many {name} are there?".split())
    return text, str(len(matching(things, **wanted)))


def _digit(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    wanted = _one_or_none(things, _some_keys(rng), rng)
    found = matching(things, **wanted)
    digit = found[0].digit if found else None
    return f"what digit is on the {_name(wanted)}?", NO if digit is None else str(digit)


def _position(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    wanted = _one_or_none(things, _some_keys(rng), rng)
    found = matching(things, **wanted)
    return f"where is the {_name(wanted)}?", " ".join(found[0].place) if found else NO


def _place(things: Things, rng: np.random.Generator) -> tuple[str, str]:
    place = _any_place(rng) if rng.random() < UNANSWERABLE_SHARE else _any_thing(things, rng).place
    key = "color" if rng.random() < 0.5 else "shape"
    found = [t for t in things if t.place == place]
    text = f"what {key} is the object at the {' '.join(place)}?"
    return text, getattr(found[0], key) if found else NO


def _any_place(rng: np.random.Generator) -> Words:
    return _pick(rng, ROWS), _pick(rng, COLS)


def _letter(layout: Layout, rng: np.random.Generator) -> tuple[str, str]:
    letters = layout.letters
    known = bool(letters) and rng.random() >= UNANSWERABLE_SHARE
    shown = letters[int(rng.integers(len(letters)))] if known else None
    if rng.random() < 0.5:
        place = shown.place if shown else _any_place(rng)
        found = [mark.letter for mark in letters if mark.place == place]
        return f"what letter is at the {' '.join(place)}?", found[0] if found else NO
    name = shown.letter if shown else _pick(rng, LETTERS)
    places = [" ".join(mark.place) for mark in letters if mark.letter == name]
    return f"where is the letter {name}?", places[0] if places else NO


_ASKERS: dict[str, Callable[[Things, np.random.Generator], tuple[str, str]]] = {
    "exist": _exist,
    "attribute": _attribute,
    "count": _count,
    "digit": _digit,
    "position": _position,
    "place": _place,
}
FAMILIES = (*_ASKERS, "letter")
_WEIGHTS = np.array([3, 3.5, 3, 2.5, 3, 3, 3]) / 21
_PHRASE_WORDS = "is there any what color shape size the how many objects object are digit letter on where at"
_OTHER_WORDS = "0 1 2 3 4 5 6 7 8 9 yes no user assistant : ?"
WORDS = (*_PHRASE_WORDS.split(), *COLORS, *SHAPES, *SIZES, *ROWS, *COLS, *LETTERS, *_OTHER_WORDS.split())
