"""Values of options that several studies have, read from text."""

from __future__ import annotations

# Rows of maps in a figure: more would make it taller than can be drawn, and than anybody looks at.
MOST_ROWS = 24


def whole_number(text: str, least: int = 0, most: int | None = None) -> int:
    """A whole number. Raises ValueError below `least` or above `most`."""
    try:
        number = int(text)
    except ValueError:
        raise ValueError("a whole number is needed") from None
    if number < least:
        raise ValueError(f"at least {least} is needed")
    if most is not None and number > most:
        raise ValueError(f"at most {most} can be")
    return number


def at_least_one(text: str) -> int:
    """A whole number from 1. Raises ValueError."""
    return whole_number(text, 1)


def drawn_rows(text: str) -> int:
    """As many rows of maps as a picture has room for. Raises ValueError."""
    return whole_number(text, 1, MOST_ROWS)


def whole_numbers(text: str) -> tuple[int, ...]:
    """`0,3,7`, sorted, each once. Raises ValueError."""
    return tuple(sorted({whole_number(each) for each in text.split(",")}))


def row_and_column(text: str) -> tuple[int, int]:
    """`3,7`. Raises ValueError."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError("a row and a column are needed, counted from 0")
    return whole_number(parts[0]), whole_number(parts[1])
