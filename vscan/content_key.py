"""What identifies the visual tokens of an image or video: 256 bits over everything that they depend on.

    key = SHA-256( len|field  len|field  ... )      len: 8 bytes, big-endian

Length framing makes the concatenation unambiguous: no two lists of fields give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from vscan.specs import FrameSampling, ReductionSpec, canonical_sampling

DIGEST_BYTES = 32


def framed_sha256(fields: Iterable[bytes]) -> bytes:
    """SHA-256 over length-framed fields, 32 bytes."""
    digest = hashlib.sha256()
    for field in fields:
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()


def frames_sha256(frames: Iterable[bytes]) -> bytes:
    """The name of a video that is sent as frames, 32 bytes: over the SHA-256 of each frame's file."""
    return framed_sha256([b"vscan frames", *(hashlib.sha256(frame).digest() for frame in frames)])


def content_key(
    *,
    codec_version: int,
    fingerprint: bytes,
    reduction: ReductionSpec,
    dtype: str,
    tenant: str,
    media_sha256: bytes,
    sampling: FrameSampling | None = None,
) -> bytes:
    """The cache key of the tokens of one image or video, 32 bytes.

    Args:
        codec_version: of the `VisualTokens` byte codec.
        fingerprint: the encoder's, 32 bytes.
        reduction: filled (see `ReductionSpec.filled_from`).
        dtype: of the tokens, for instance `float32`.
        tenant: whose image it is.
        media_sha256: SHA-256 of the file, or `frames_sha256` of frames, 32 bytes.
        sampling: which frames of a video; None of an image. The same GIF is one thing as an image and another as a video.
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
            *([] if sampling is None else [b"video", canonical_sampling(sampling)]),
        ]
    )
