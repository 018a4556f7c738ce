"""Whether, and when, to try again."""

from __future__ import annotations

from random import Random

from vscan.errors import VScanError
from vscan_client.options import Retry

# Ten calls that succeed pay for one retry.
_EARNED_PER_SUCCESS = 0.1


class RetryBudget:
    """Retries that all calls of one client may still spend."""

    def __init__(self, size: int) -> None:
        self._size = float(size)
        self._left = float(size)

    def earn(self) -> None:
        """A call succeeded."""
        self._left = min(self._size, self._left + _EARNED_PER_SUCCESS)

    def spend(self) -> bool:
        """Takes one retry, if there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def wait_seconds(retry: Retry, failures: int, error: VScanError, random: Random) -> float:
    """How long to wait after the `failures`-th failure in a row (from 1): the server's wish, else doubling; plus jitter."""
    asked_ms: int | None = getattr(error, "retry_delay_ms", None)
    own_ms = min(retry.max_backoff_ms, retry.backoff_ms * 2 ** (failures - 1))
    base_ms = own_ms if asked_ms is None else asked_ms
    return base_ms * (1 + retry.jitter * random.random()) / 1000
