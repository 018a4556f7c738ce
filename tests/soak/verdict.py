"""What a soak's samples say.

    0 ──── caches fill ──── warm ──── first fifth of the rest ──── … ──── last fifth
                                      memory here                 against here

Warm is the first sample at which every bounded cache has reached its bound, or nearly: the memory tiers of both services,
Redis, and the KV cache, which keeps what prompts leave until its pages are wanted. They are full within seconds. So is what has
no figure (malloc's high-water marks, the kernels that oneDNN keeps) once as many requests again have come: a tenth of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from bench.harness import Check
from tests.soak.traffic import KINDS, Done
from tests.soak.watch import FULL_SHARE, HELD_FOR_SOMEBODY, Bounds, Held

MEMORY_TOLERANCE = 0.05
LATENCY_TOLERANCE = 0.25
# Shorter runs show leaks of what is counted, not of memory, and other load on the machine would show as drift.
LONG_ENOUGH_SECONDS = 300.0
_FIFTHS = 5
REDIS_CONNECTIONS = 8  # of each service; a pool that has grown stays so
_SPARE = {"tasks": 2.0, "threads": 4.0, "open_files": REDIS_CONNECTIONS + 4.0}  # above the idle state before
_LEAST_WARM_UP = 1 / 10  # of the run


def warm_at(samples: Sequence[Held], bounds: Bounds) -> int | None:
    """The index of the first sample with all caches full, after the first tenth; None if there is none."""
    full = {
        "encoder cache_bytes": bounds.encoder_cache_bytes * FULL_SHARE,
        "decoder cache_bytes": bounds.decoder_cache_bytes * FULL_SHARE,
        "redis used_bytes": bounds.redis_bytes * FULL_SHARE,
        "decoder pages_used": FULL_SHARE,
    }
    for index, held in enumerate(samples):
        if index >= len(samples) * _LEAST_WARM_UP and all(held[name] >= least for name, least in full.items()):
            return index
    return None


def checks(samples: Sequence[Held], before: Held, after: Held, done: Sequence[Done], bounds: Bounds) -> Iterator[Check]:
    """All that this run is long enough for."""
    yield Check(
        "requests that ended as their kind may not", sum(not KINDS[each.kind].expects(each.error) for each in done), "==", 0
    )
    yield Check("kinds of request that were never made", len(KINDS.keys() - {each.kind for each in done}), "==", 0)
    yield Check("requests refused for want of room", sum(each.error == "ResourceExhausted" for each in done), ">=", 1)
    yield from left_over(before, after)
    yield Check("redis used_bytes, most", max(held["redis used_bytes"] for held in samples), "<=", bounds.redis_bytes * 1.1)
    if samples[-1]["at_s"] - samples[0]["at_s"] >= LONG_ENOUGH_SECONDS * 0.95:
        yield from _drifts(samples, done, bounds)


def left_over(before: Held, after: Held) -> Iterator[Check]:
    """What is held when nobody asks any more."""
    for name in HELD_FOR_SOMEBODY:
        yield Check(f"{name}, when idle", after[name], "==", 0)
    for service in ("encoder", "decoder"):
        for name, spare in _SPARE.items():
            yield Check(f"{service} {name}, when idle", after[f"{service} {name}"], "<=", before[f"{service} {name}"] + spare)


def _drifts(samples: Sequence[Held], done: Sequence[Done], bounds: Bounds) -> Iterator[Check]:
    warm = warm_at(samples, bounds)
    yield Check("share of the run before it was warm", 1.0 if warm is None else warm / len(samples), "<=", 0.5)
    for service in ("encoder", "decoder"):
        growth = memory_growth(samples[warm or 0 :], f"{service} rss_anon_bytes")
        yield Check(f"{service} memory after warm-up, growth", abs(growth), "<=", MEMORY_TOLERANCE)
    yield Check("latency, last fifth over second fifth", latency_drift(done), "<=", 1 + LATENCY_TOLERANCE)


def memory_growth(samples: Sequence[Held], name: str) -> float:
    """The median of the last fifth over that of the first, less 1."""
    fifth = max(1, len(samples) // _FIFTHS)
    first, last = (median(held[name] for held in some) for some in (samples[:fifth], samples[-fifth:]))
    return last / first - 1


def latency_drift(done: Sequence[Done]) -> float:
    """Of answers about known pictures: the median of the last fifth of the run over that of its second fifth."""
    answered = [each for each in done if each.kind == "repeated" and not each.error]
    fifth = len(answered) // _FIFTHS
    if not fifth:
        return 1.0  # too few to say
    return median(each.took_s for each in answered[-fifth:]) / median(each.took_s for each in answered[fifth : 2 * fifth])


def by_kind(done: Sequence[Done]) -> dict[str, dict[str, Any]]:
    """What became of each kind of request."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        some = [each for each in done if each.kind == kind]
        took = [each.took_s for each in some if not each.error]
        found[kind] = {
            "requests": len(some),
            "answered": len(took),
            "errors": dict(Counter(each.error for each in some if each.error)),
            "median_s": round(median(took), 4) if took else None,
        }
    return found
