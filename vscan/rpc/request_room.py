"""Room for the bytes of requests: a number of calls says little where one may have 64 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vscan.errors import ResourceExhausted

_RETRY_DELAY_MS = 200


class RequestRoom:
    """Belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Of all requests that are being served."""
        return self._held

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """While a request of this size is served. Raises ResourceExhausted where others leave too little room."""
        if self._held + size_bytes > self._max_bytes:
            reason = f"requests of {self._max_bytes:,} bytes are being served already"
            raise ResourceExhausted(reason, retry_delay_ms=_RETRY_DELAY_MS)
        self._held += size_bytes
        try:
            yield
        finally:
            self._held -= size_bytes
