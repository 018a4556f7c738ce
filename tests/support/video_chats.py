"""Conversations about images and videos: alone, two of a kind, both kinds, over several turns."""

from __future__ import annotations

import random
from collections.abc import Callable

from decoder_service.chat import Role
from tests.support.both_halves import Clip, Content, Picture, Turns
from tests.support.video_llava import frames_of_noise

# Frames of each video, None for an image, `|` between turns.
SHAPES: list[list[int | str | None]] = [
    [1],
    [2],
    [3],
    [4],
    [5],
    [7],
    [8],
    [None],
    [None, None],
    [None, 3],
    [2, None],
    [3, 2],
    [4, 4],
    [1, None, 5],
    [None, 2, None],
    [5, 1, None, 2],
    [3, "|"],
    [None, "|", 3],
    [2, "|", None],
    [4, "|", 3],
    ["|", 5],
    [1, "|", 2, "|", None],
    [None, 6, "|", "|", 1],
    [7, "|", None, None],
]
SIZES = [(56, 56), (80, 60), (31, 90), (140, 56)]
RATES = [0.5, 1.0, 2.0, 3.0, 9.5]


def video_chats(words: Callable[[random.Random], str]) -> list[Turns]:
    """One of each shape; `words` makes up a text."""
    generator = random.Random(0)
    return [_turns(shape, generator, words) for shape in SHAPES]


def _turns(shape: list[int | str | None], generator: random.Random, words: Callable[[random.Random], str]) -> Turns:
    said: list[tuple[Role, list[Content]]] = [(Role.USER, [])]
    for thing in shape:
        if thing == "|":
            said[-1][1].append(words(generator))
            said += [(Role.ASSISTANT, [words(generator)]), (Role.USER, [])]
            continue
        count = 1 if thing is None else int(thing)
        frames = frames_of_noise(count, *generator.choice(SIZES), seed=generator.randrange(1000))
        seen = Picture(frames[0]) if thing is None else Clip(frames, generator.choice(RATES))
        said[-1][1].extend([words(generator), seen] if generator.random() < 0.5 else [seen])
    said[-1][1].append(words(generator))
    return said
