"""What the time of a look-up tells one tenant of another's images: part of `python -m bench.cache`.

Pairs of look-ups, one after the other in random order: of a digest whose tokens are there for another tenant, and of one that
nobody has. AUC (Mann-Whitney) is the probability that the former takes longer: a half where time tells nothing. As a control
the same for a tenant's own digest, which time may tell.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoder_service.image_encoder import ImageEncoder
from encoder_service.media import ImageFile
from tests.support.encoder import running_encoder
from vscan.errors import MissingImages
from vscan.specs import ReductionSpec

_ANYTHING = ReductionSpec()
_OWNER, _PROBER = "owner", "prober"
_IMAGES = 4
_UNMEASURED_PAIRS = 20
_TIERS = {"memory": 2**28, "redis": 0}  # bytes of the memory tier: without one the tokens are in Redis alone

Ask = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One verb against one tier."""

    tier: str
    verb: str
    tenant: str  # who asks
    auc: float
    median_ms: tuple[float, float]  # of the digests that are there for the owner, and of unknown ones


async def probe(images: Sequence[bytes], pairs: int, **settings: Any) -> list[Probe]:
    """Each verb against each tier, as another tenant and, for control, as the owner. `settings`: an encoder's, with Redis."""
    probes = []
    for tier, memory_bytes in _TIERS.items():
        async with running_encoder(**settings | {"cache_memory_bytes": memory_bytes}) as running:
            encoder = running.service.encoder
            there = [(await encoder.encode(ImageFile(data), _ANYTHING, _OWNER)).sha256 for data in images[:_IMAGES]]
            for (verb, ask_as), tenant in itertools.product(_VERBS.items(), (_PROBER, _OWNER)):
                slower, faster = await _times_ms(ask_as(encoder, tenant), there, pairs)
                medians = (float(np.median(slower)), float(np.median(faster)))
                probes.append(Probe(tier, verb, tenant, auc(slower, faster), medians))
    return probes


def farthest(probes: Sequence[Probe]) -> float:
    """Of the other tenant's AUCs the one that tells most, turned to lie above a half: a shorter time would tell, too."""
    return max(0.5 + abs(one.auc - 0.5) for one in probes if one.tenant == _PROBER)


def standard_error(pairs: int) -> float:
    """How far an AUC lies from a half by chance, where the times tell nothing."""
    return math.sqrt((2 * pairs + 1) / 12) / pairs


def auc(ones: Sequence[float], others: Sequence[float]) -> float:
    """The probability that one of `ones` is larger than one of `others`, a tie counting half."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, ones, side="left") + np.searchsorted(ranked, ones, side="right")
    return float(below.mean() / 2 / len(ranked))


async def _times_ms(ask: Ask, there: Sequence[bytes], pairs: int) -> tuple[list[float], list[float]]:
    """Of digests that are there for the owner, and of as many unknown ones."""
    unknown = [hashlib.sha256(digest).digest() for digest in there]
    order = random.Random(0)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(_UNMEASURED_PAIRS + pairs):
        pair = [(there[number % len(there)], times[0]), (unknown[number % len(unknown)], times[1])]
        order.shuffle(pair)
        for digest, into in pair:
            began = time.perf_counter()
            await ask(digest)
            if number >= _UNMEASURED_PAIRS:
                into.append((time.perf_counter() - began) * 1000)
    return times


def _by_lookup(encoder: ImageEncoder, tenant: str) -> Ask:
    async def ask(digest: bytes) -> None:
        await encoder.lookup([digest], _ANYTHING, tenant)

    return ask


def _by_find(encoder: ImageEncoder, tenant: str) -> Ask:
    async def ask(digest: bytes) -> None:
        try:
            await encoder.find(digest, _ANYTHING, tenant)
        except MissingImages:
            return

    return ask


_VERBS = {"lookup": _by_lookup, "find": _by_find}
