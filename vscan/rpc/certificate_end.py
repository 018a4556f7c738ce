"""When certificates end, read from a PEM file: the standard library tells it only of a peer's.

RFC 5280, 4.1, of which nothing but the way to `notAfter` is read:

    Certificate  SEQUENCE ─▶ tbsCertificate  SEQUENCE ─▶ [0] version, if there is one
                                                         serialNumber, signature, issuer
                                                         validity  SEQUENCE ─▶ notBefore, notAfter
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_BEFORE_VALIDITY = 3
_LOOK_EVERY_SECONDS = 30.0


def first_end(pem_file: Path) -> float:
    """When the first of a file's certificates ends, seconds since 1970: with it the whole chain is refused.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no certificate in it, or one that cannot be understood.
    """
    found = _PEM.findall(pem_file.read_text(errors="replace"))
    if not found:
        raise ValueError("no certificate")
    return min(_end(ssl.PEM_cert_to_DER_cert(text)) for text in found)


async def tell_end(look: Callable[[], float | None], tell: Callable[[float], None]) -> None:
    """Tells what `look` finds, twice a minute, until it is cancelled; nothing where it finds None."""
    while True:
        if (end_s := look()) is not None:
            tell(end_s)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _end(der: bytes) -> float:
    try:
        at = _inside(der, _inside(der, 0)[0])[0]
        for _ in range(_BEFORE_VALIDITY + (der[at] == _VERSION)):
            at = _inside(der, at)[1]
        not_after = _inside(der, _inside(der, at)[0])[1]
        begin, end = _inside(der, not_after)
        return _time(der[not_after], der[begin:end].decode("ascii")).timestamp()
    except IndexError as error:
        raise ValueError("a certificate that is cut off") from error


def _inside(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends. A length of 128 and more has a byte for its own length."""
    length, at = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(der[at : at + size]), at + size
    return at, at + length


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:  # of 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"no time, but an element of tag {tag:#x}")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
