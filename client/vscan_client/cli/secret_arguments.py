"""Secrets do not belong on a command line, which every user of the machine can read."""

from __future__ import annotations

from vscan.cache.redis_address import has_password
from vscan.errors import InvalidArgument


def refuse_password_in(redis_url: str | None, option: str) -> None:
    """Raises InvalidArgument, which does not show it, where the URL of Redis holds a password."""
    if redis_url is not None and has_password(redis_url):
        raise InvalidArgument(
            option, "a password on a command line can be read by everybody on this machine: give --redis-password-file FILE"
        )
