"""Plans against simulations of them: at the planned size, and at the least one that reaches the goal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.capacity.demand import Demand
from bench.capacity.fleets import Run, figures, simulate
from bench.capacity.planning.plan import plan
from bench.capacity.profile import Profile
from bench.capacity.simulation.world import Limit, TooLate

# A plan may have so many times the replicas that suffice by simulation: `imbalance` / `utilisation` is 1.67 of that by intent.
_MOST_OVERSIZE = 2.0
# Or one more, where there are few: there is no half replica.
_ONE_MORE = 1
_CLOSE = 0.05  # of the least number, to which it is looked for
# First tokens may come so many times as late in the last quarter as in the second one; later ones tell of a queue that grows.
_GROWS = 1.5
_MOST_LATE = 0.05  # of all requests; a run with more is given up, for its 95th percentile misses the goal
_LEAST_REQUESTS, _EACH, _SECONDS, _MOST_REQUESTS = 3000, 25, 20, 12_000
_KNOWN_SECONDS, _LEAST_KNOWN, _MOST_KNOWN = 10, 100, 3000
_LARGE = 500  # replicas from which on half of them are simulated, and not the least number looked for: that would take minutes
_SEED = 7


@dataclass(frozen=True, slots=True)
class Case:
    """A load that is planned and simulated."""

    name: str
    demand: Demand
    clients: int = 4


def cases() -> Iterator[Case]:
    """From one replica of each kind to a thousand in all."""
    usual = Demand(
        requests_per_second=1,
        pixels=336 * 336,
        repeat_rate=0.7,
        answer_tokens=16,
        question_tokens=8,
        ttl_s=3600,
        target_ms=450,
        spare=0,
    )
    for rate in (4.0, 40.0, 400.0):
        yield Case(f"{rate:g} a second", _at(usual, rate))
    yield Case("all images new", _at(usual, 40, repeat_rate=0.0))
    yield Case("nearly all known", _at(usual, 100, repeat_rate=0.98))
    yield Case("long answers", _at(usual, 20, answer_tokens=96))
    yield Case("little KV memory", _at(usual, 20, answer_tokens=96, kv_bytes=12 << 20))
    yield Case("a thousand replicas", _at(usual, 8000, repeat_rate=0.3))


def _at(usual: Demand, rate: float, **changes: Any) -> Demand:
    """The images that repeats are about are as many as come in some seconds."""
    known = min(_MOST_KNOWN, max(_LEAST_KNOWN, round(_KNOWN_SECONDS * rate)))
    return replace(usual, requests_per_second=rate, repeated_images=known, **changes)


def check(profile: Profile, case: Case) -> dict[str, Any]:
    """Raises NotMeasured."""
    began, made = time.perf_counter(), plan(profile, case.demand)
    decoders, encoders = made.decoders.needed, made.encoders.needed
    whole = _simulated(profile, case, decoders, encoders, made.redis_servers)
    met, large = _meets(whole, case.demand), decoders + encoders >= _LARGE

    def suffices(some_decoders: int, some_encoders: int) -> bool:
        try:
            found = _simulated(profile, case, some_decoders, some_encoders, made.redis_servers, gives_up=True)
        except TooLate:
            return False
        return _meets(found, case.demand)

    least = {}
    if met:
        least = {
            "decoders": least_count(decoders, lambda count: suffices(count, encoders), halves=large),
            "encoders": least_count(encoders, lambda count: suffices(decoders, count), halves=large),
        }
    planned = {"decoders": decoders, "encoders": encoders}
    return {
        "name": case.name,
        "requests_per_second": case.demand.requests_per_second,
        "target_ms": case.demand.target_ms,
        **planned,
        "bound": {"decoders": made.decoders.bound, "encoders": made.encoders.bound},
        "planned_p95_ms": made.first_token_p95_ms,
        "planned_busy": made.decoder.utilisation,
        "planned": whole,
        "least": least,
        "by_halves": large,
        "met": met,
        "not_oversized": met and all(is_close(planned[kind], count) for kind, count in least.items()),
        "ran_s": time.perf_counter() - began,
    }


def is_close(planned: int, least: int) -> bool:
    """Whether a plan is not far above the number that suffices."""
    return planned <= max(_MOST_OVERSIZE * least, least + _ONE_MORE)


def least_count(planned: int, suffices: Callable[[int], bool], *, halves: bool = False) -> int:
    """The least number that suffices, `planned` being one that does; to a twentieth.

    Args:
        halves: half of it is tried, half of that if it suffices, and so on: the number is known to a factor of two, from above.
    """
    low, high = 0, planned
    while high - low > max(1, _CLOSE * high):
        middle = high // 2 if halves else (low + high) // 2
        if suffices(middle):
            high = middle
        elif halves:
            return middle + 1
        else:
            low = middle
    return high


def _simulated(
    profile: Profile, case: Case, decoders: int, encoders: int, redis: int, *, gives_up: bool = False
) -> dict[str, Any]:
    wanted = max(_EACH * (decoders + encoders), _SECONDS * case.demand.requests_per_second)
    requests = round(min(_MOST_REQUESTS, max(_LEAST_REQUESTS, wanted)))
    known = round(case.demand.images_of_repeats)
    run = Run(requests=requests, redis_servers=redis, clients=case.clients, known=known, seed=_SEED)
    limit = Limit(case.demand.target_ms, round(_MOST_LATE * requests)) if gives_up else None
    result = simulate(profile, case.demand, decoders, encoders, run, limit)
    return {"decoders": decoders, "encoders": encoders, **figures(result)}


def _meets(found: dict[str, Any], demand: Demand) -> bool:
    """All are answered, in time, and no later towards the end."""
    if set(found["ends"]) != {"answered"}:
        return False
    return bool(found["first_token_ms"]["p95"] <= demand.target_ms and found["grows"] <= _GROWS)
