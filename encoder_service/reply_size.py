"""Whether tokens fit the message that is to carry them."""

from __future__ import annotations

from encoder_service.images import bytes_text
from vscan.errors import InvalidArgument


class TooLargeToSend(Exception):
    """Tokens of more bytes than the one that asked can be sent; another may want them all the same, without their bytes."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes of tokens")
        self.size_bytes = size_bytes


def too_large_to_send(size_bytes: int, max_bytes: int) -> InvalidArgument:
    """What the caller is told."""
    limit = f"{bytes_text(max_bytes)} of a message; keep fewer"
    return InvalidArgument("reduction", f"{bytes_text(size_bytes)} of tokens", limit=limit)
