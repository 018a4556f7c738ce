"""The caller's remaining time."""

from __future__ import annotations

import time

import pytest

from vscan.errors import DeadlineExceeded
from vscan.rpc.deadlines import Deadline


class Context:
    """The one method of a gRPC context that is asked."""

    def __init__(self, left: float | None) -> None:
        self._left = left

    def time_remaining(self) -> float | None:
        return self._left


def test_no_deadline_never_passes() -> None:
    deadline = Deadline.of(Context(None))
    assert deadline.left_seconds() is None
    assert not deadline.passed
    deadline.check("the batch")


def test_time_left_shrinks_on_the_monotonic_clock() -> None:
    before = time.monotonic()
    deadline = Deadline.of(Context(60.0))
    assert deadline.at_seconds is not None
    assert deadline.at_seconds >= before + 60.0
    left = deadline.left_seconds()
    assert left is not None
    assert 0 < left <= 60.0


def test_a_passed_deadline_says_what_it_was_too_late_for() -> None:
    deadline = Deadline.of(Context(0.0))
    assert deadline.passed
    assert deadline.left_seconds() == 0.0
    with pytest.raises(DeadlineExceeded, match="before the batch"):
        deadline.check("the batch")
