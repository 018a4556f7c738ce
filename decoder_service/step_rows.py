"""How the rows of a step that decoding leaves are shared among the prompts. No torch."""

from __future__ import annotations

from collections.abc import Sequence


def share_rows(rows: int, needs: Sequence[int]) -> list[int]:
    """Rows for each prompt of those that still need so many, oldest first.

    The oldest is sure of an equal share, so that nobody waits for ever; all else goes to those that are done soonest, so that a
    short question passes a long one and two long ones follow each other.

        16 rows, needs 480 20 4:   5 to the oldest; then 4 to the last, and the 7 that are left to the second:  5 7 4
    """
    given = [0] * len(needs)
    if rows < 1 or not needs:
        return given
    given[0] = min(needs[0], max(1, rows // len(needs)))
    left = rows - given[0]
    for place in sorted(range(len(needs)), key=lambda place: needs[place]):
        more = min(needs[place] - given[place], left)
        given[place] += more
        left -= more
    return given
