"""The little Markdown that the generated pages need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def generated_from(sources: str) -> str:
    """The line that stops people from editing a generated page."""
    return f"<!-- Generated from {sources} by `make docs`. A test compares; edit the source. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` and line breaks in cells are made harmless."""
    lines = [_row(head), _row(["---"] * len(head)), *(_row([_cell(cell) for cell in row]) for row in rows)]
    return "\n".join(lines)


def code(text: str) -> str:
    """Text as code, within a line."""
    return f"`{text}`"


def page(blocks: Iterable[str]) -> str:
    """Blocks with a blank line between them."""
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
