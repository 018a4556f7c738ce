"""How far two prompts are the same, row by row."""

from __future__ import annotations

import random

import pytest

from decoder_service.kv_cache.prefix import RowIdentity
from decoder_service.request import ImageSpan, Prompt


def identity(*pieces: int | tuple[bytes, int], keyed: bool = True) -> RowIdentity:
    """Of text tokens and images, each its key and how many rows it takes."""
    ids: list[int] = []
    spans: list[ImageSpan] = []
    keys: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            continue
        spans.append(ImageSpan(len(spans), len(ids), piece[1]))
        keys.append(piece[0])
        ids += [0] * piece[1]
    images = (None,) * len(spans)
    return RowIdentity(Prompt(tuple(ids), tuple(spans), images, tuple(keys) if keyed else ()))  # type: ignore[arg-type]


K, L = (b"K", 5), (b"L", 5)


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        ((1, 2, K, 3), (1, 2, K, 3), 8),
        ((1, 2, K, 3), (1, 2, K, 4, 5), 7),
        ((1, 2, K, 3), (1, 2, L, 3), 2),
        ((1, 2, K, 3, L), (1, 2, K, 3, K), 8),
        ((1, K, 2), (1, 0, 0, 0, 0, 0, 2), 1),  # ids alike, but no image
        ((1, K), (1, K, 9), 6),
        ((1,), (2,), 0),
        ((1, 2), (1, 2, K), 2),
    ],
)
def test_leading_rows_that_are_the_same(one: tuple[int, ...], other: tuple[int, ...], rows: int) -> None:
    assert identity(*one).common(identity(*other)) == rows
    assert identity(*other).common(identity(*one)) == rows


def test_images_without_a_key_are_like_no_other() -> None:
    assert identity(1, 2, K, keyed=False).common(identity(1, 2, K, keyed=False)) == 2


def test_as_many_as_have_the_same_content_one_by_one() -> None:
    generator = random.Random(0)
    pieces: list[int | tuple[bytes, int]] = [1, 1, 1, 2, K, K, L]
    for _ in range(300):
        one, other = (identity(*(generator.choice(pieces) for _ in range(5))) for _ in range(2))
        most = min(len(one.ids), len(other.ids))
        alike = [one.content(row, row + 1) == other.content(row, row + 1) for row in range(most)]
        assert one.common(other) == (alike.index(False) if False in alike else most)
