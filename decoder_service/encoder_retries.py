"""When the decoder asks for an image's tokens once more: an encoder was away or stopping, and another one may be there."""

from __future__ import annotations

from vscan.rpc.deadlines import Deadline

# In all three quarters of a second. At once first: of several encoders the next one in turn is asked. The rest is longer than
# one that stops goes on refusing before its connection is gone.
_WAITS_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4)
_BUDGET = 64.0
# Ten answers pay for one retry.
_EARNED_PER_ANSWER = 0.1


class EncoderRetries:
    """The retries that all calls of one decoder may still spend. Encode may run twice: it has no effect but a cache entry.

    gRPC's own retry policy does not do it: servers in Python send their headers before a status, and a client's gRPC takes a
    call with headers for begun.
    """

    def __init__(self) -> None:
        self._left = _BUDGET

    def answered(self) -> None:
        """A call was."""
        self._left = min(_BUDGET, self._left + _EARNED_PER_ANSWER)

    def wait_seconds(self, failures: int, deadline: Deadline) -> float | None:
        """How long to wait after the `failures`-th failure of a call (from 1); None if it is the last one. Spends a retry."""
        left_seconds = deadline.left_seconds()
        if failures > len(_WAITS_SECONDS) or self._left < 1:
            return None
        wait = _WAITS_SECONDS[failures - 1]
        if left_seconds is not None and left_seconds <= wait:
            return None
        self._left -= 1
        return wait
