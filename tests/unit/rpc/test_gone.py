"""What a call ends with whose caller is gone."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from vscan.rpc.interceptors import gone_status


@dataclass
class Left:
    """A call's context with so much time left."""

    seconds: float | None

    def time_remaining(self) -> float | None:
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (None, grpc.StatusCode.CANCELLED),
        (20.0, grpc.StatusCode.CANCELLED),
        (0.0, grpc.StatusCode.DEADLINE_EXCEEDED),
        (-1.0, grpc.StatusCode.DEADLINE_EXCEEDED),
        # The caller's own clock ran out a little before this one's.
        (0.004, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_a_deadline_that_has_all_but_passed_was_the_reason(seconds: float | None, status: grpc.StatusCode) -> None:
    assert gone_status(Left(seconds)) is status
