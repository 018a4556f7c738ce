"""How much of the caller's time is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vscan.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the caller stops waiting, on the monotonic clock, so that a queue or a thread can hold it; None means never."""

    at_seconds: float | None = None

    @classmethod
    def of(cls, context: Any) -> Deadline:
        """The deadline of a call being served, from its gRPC context."""
        left = context.time_remaining()
        return cls(None if left is None else time.monotonic() + left)

    def left_seconds(self) -> float | None:
        """Seconds left, never below 0; None if there is no deadline. Fits `timeout=` of asyncio and of a stub."""
        return None if self.at_seconds is None else max(0.0, self.at_seconds - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the caller has stopped waiting."""
        return self.left_seconds() == 0.0

    def check(self, what: str) -> None:
        """Raises `DeadlineExceeded` if there is no time left for `what`."""
        if self.passed:
            raise DeadlineExceeded(f"the deadline passed before {what}")
