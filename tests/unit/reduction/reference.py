"""Stage 1 of the paper in plain Python, one token at a time: slow, and easy to check by eye."""

from __future__ import annotations

import math


def best(scores: list[float], candidates: list[int], count: int) -> list[int]:
    """The `count` best candidates; of equal ones the lower index."""
    return sorted(candidates, key=lambda token: (-scores[token], token))[:count]


def windows(rows: int, columns: int, window: int) -> list[list[int]]:
    """The tokens of each window; remainder rows and columns belong to the last one."""
    down, across = max(1, rows // window), max(1, columns // window)
    found: list[list[int]] = [[] for _ in range(down * across)]
    for row in range(rows):
        for column in range(columns):
            place = min(row // window, down - 1) * across + min(column // window, across - 1)
            found[place].append(row * columns + column)
    return found


def local(scores: list[float], rows: int, columns: int, window: int, count: int) -> set[int]:
    """Equally many of every window."""
    every = windows(rows, columns, window)
    return {token for tokens in every for token in best(scores, tokens, count // len(every))}


def capped(scores: list[float], rows: int, columns: int, window: int, count: int) -> set[int]:
    """From the best on, until there are `count`; a window that has its share is passed over."""
    every = windows(rows, columns, window)
    room = {token: place for place, tokens in enumerate(every) for token in tokens}
    share = [math.ceil(count / len(every))] * len(every)
    kept: set[int] = set()
    for token in best(scores, list(room), len(room)):
        if len(kept) < count and share[room[token]]:
            kept.add(token)
            share[room[token]] -= 1
    return kept


def vscan(
    shallow: list[float], deep: list[float], rows: int, columns: int, window: int, keep: int, local_share: float
) -> tuple[set[int], set[int]]:
    """Tokens that the local and the global scan keep."""
    near = local(shallow, rows, columns, window, math.floor(keep * local_share + 1e-9))
    rest = [token for token in range(rows * columns) if token not in near]
    return near, set(best(deep, rest, keep - len(near)))


def merge(tokens: list[list[float]], kept: list[int]) -> tuple[list[list[float]], list[int]]:
    """Means over each kept token and what is most similar to it, and the row of every token."""
    into = []
    for index, token in enumerate(tokens):
        similarities = [cosine(token, tokens[other]) for other in kept]
        into.append(kept.index(index) if index in kept else similarities.index(max(similarities)))
    rows = []
    for row in range(len(kept)):
        members = [tokens[index] for index, target in enumerate(into) if target == row]
        rows.append([sum(column) / len(members) for column in zip(*members, strict=True)])
    return rows, into


def cosine(a: list[float], b: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
