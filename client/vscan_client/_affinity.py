"""Which replica a request belongs to: rendezvous hashing (highest random weight; Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998).

Each endpoint has a weight for each key, a hash of the two, and the endpoints are asked from the heaviest on. So all clients
that are given the same endpoints agree, in whatever order they are given. Where an endpoint leaves, its keys alone go
elsewhere, each to its own second choice; where one joins, it takes an equal share of everybody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from vscan_client.content import Visual

HEADER = "x-vscan-affinity"
# Both hashes say what they are for, so that neither can be taken for another use of the same digest.
_KEY_PREFIX = b"vscan affinity key 1\0"
_WEIGHT_PREFIX = b"vscan affinity weight 1\0"
_KEY_BYTES = 16


def affinity_key(visuals: Sequence[Visual]) -> str | None:
    """What requests that begin alike have in common, 32 hexadecimal digits; `None` without images and videos.

    Prompts share their prefix: the system text, then images and videos in order. So the first one decides, and the requests
    about it stay together whatever follows. The key is no digest: that would be a name which the server looks up.
    """
    if not visuals:
        return None
    return hashlib.sha256(_KEY_PREFIX + visuals[0].sha256).digest()[:_KEY_BYTES].hex()


def affinity_metadata(key: str | None) -> tuple[tuple[str, str], ...]:
    """The header that lets a proxy choose, too."""
    return () if key is None else ((HEADER, key),)


def rendezvous_order(endpoints: Iterable[str], key: str) -> list[str]:
    """The endpoints from the heaviest on."""
    return sorted(endpoints, key=lambda endpoint: (_weight(endpoint, key), endpoint), reverse=True)


def _weight(endpoint: str, key: str) -> bytes:
    return hashlib.sha256(_WEIGHT_PREFIX + key.encode() + b"\0" + endpoint.encode()).digest()
