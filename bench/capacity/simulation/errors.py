"""What a simulated service refuses with; clients see the project's own errors."""

from __future__ import annotations


class Busy(Exception):
    """Too much to do; come back in so many milliseconds."""

    def __init__(self, retry_ms: int) -> None:
        super().__init__(f"busy for {retry_ms} ms")
        self.retry_ms = retry_ms


class Away(Exception):
    """The replica is gone."""


class Missing(Exception):
    """The tokens of an image that was named by its digest are nowhere."""
