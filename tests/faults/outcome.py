"""What became of one request, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class End(Enum):
    """How a request may end for its client."""

    ANSWERED = "answered"
    TYPED_ERROR = "typed error"
    LOST = "lost"  # neither within the deadline and the margin, or with an exception that is none of `vscan.errors`


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Times are of this process' monotonic clock, in seconds.

    Attributes:
        equal: the answer is the undisturbed one.
        error: the class of what was raised; `message`: its text.
        attempts: requests sent for it.
        request_id: that the decoder gave it; empty where no first event came.
        ends: events that end a stream.
        sent_again: it was sent once more after one of its events had come.
    """

    client: int
    begun_s: float
    ended_s: float
    end: End
    equal: bool = False
    error: str = ""
    message: str = ""
    attempts: int = 1
    request_id: str = ""
    ends: int = 0
    late_events: int = 0
    sent_again: bool = False

    @property
    def lost(self) -> bool:
        """A wrong answer is none."""
        return self.end is End.LOST or (self.end is End.ANSWERED and not self.equal)

    @property
    def doubled(self) -> bool:
        """It ended more than once, or was asked again when it was being answered."""
        return self.ends > 1 or self.late_events > 0 or self.sent_again

    def overlaps(self, begin_s: float, end_s: float) -> bool:
        """Whether it was under way in that time."""
        return self.begun_s < end_s and self.ended_s > begin_s

    def slow(self, seconds: float) -> bool:
        """Whether it took longer than that."""
        return self.ended_s - self.begun_s > seconds
