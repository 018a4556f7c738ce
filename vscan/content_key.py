"""What identifies the visual tokens of an image: 256 bits over everything that they depend on.

    key = SHA-256( len|field  len|field  ... )      len: 8 bytes, big-endian

Length framing makes the concatenation unambiguous: no two lists of fields give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from vscan.specs import ReductionSpec

DIGEST_BYTES = 32


def framed_sha256(fields: Iterable[bytes]) -> bytes:
    """SHA-256 over length-framed fields, 32 bytes."""
    digest = hashlib.sha256()
    for field in fields:
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()


def content_key(
    *, codec_version: int, fingerprint: bytes, reduction: ReductionSpec, dtype: str, tenant: str, media_sha256: bytes
) -> bytes:
    """The cache key of one image's tokens, 32 bytes.

    Args:
        codec_version: of the `VisualTokens` byte codec.
        fingerprint: the encoder's, 32 bytes.
        reduction: filled (see `ReductionSpec.filled_from`).
        dtype: of the tokens, for instance `float32`.
        tenant: whose image it is.
        media_sha256: SHA-256 of the image file, 32 bytes.
    """
    if len(media_sha256) != DIGEST_BYTES or len(fingerprint) != DIGEST_BYTES:
        raise ValueError("a digest and a fingerprint have 32 bytes")
    return framed_sha256(
        [
            b"vscan visual tokens",
            str(codec_version).encode(),
            fingerprint,
            reduction.canonical(),
            dtype.encode(),
            tenant.encode(),
            media_sha256,
        ]
    )
