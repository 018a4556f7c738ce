"""Plans against simulations of them: at the planned size, and with fewer of what binds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.capacity.demand import Demand
from bench.capacity.fleets import Run, figures, simulate
from bench.capacity.planning.plan import plan
from bench.capacity.profile import Profile

# With so many of the planned replicas the goal must be missed, or the first token come at least so many times as late.
_FEWER, _QUEUES = 0.5, 1.5
_LEAST_REQUESTS, _EACH, _MOST_REQUESTS = 3000, 25, 12_000
_KNOWN_EACH, _MOST_KNOWN = 100, 3000
_LARGE = 500  # replicas from which on a fleet that is full takes too long: each of its requests asks every decoder
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
        yield Case(f"{rate:g} a second", usual.at(rate))
    yield Case("all images new", replace(usual, requests_per_second=40, repeat_rate=0.0))
    yield Case("nearly all known", replace(usual, requests_per_second=100, repeat_rate=0.98))
    yield Case("long answers", replace(usual, requests_per_second=20, answer_tokens=96))
    yield Case("little KV memory", replace(usual, requests_per_second=20, answer_tokens=96, kv_bytes=12 << 20))
    yield Case("a thousand replicas", replace(usual, requests_per_second=8000, repeat_rate=0.3))


def check(profile: Profile, case: Case) -> dict[str, Any]:
    """Raises NotMeasured."""
    made = plan(profile, case.demand)
    decoders, encoders = made.decoders.needed, made.encoders.needed
    whole = _simulated(profile, case, decoders, encoders, made.redis_servers)
    large = decoders + encoders >= _LARGE
    fewer_decoders, fewer_encoders = (count if large else max(1, round(_FEWER * count)) for count in (decoders, encoders))
    records = {
        "planned": whole,
        "fewer decoders": _simulated(profile, case, fewer_decoders, encoders, made.redis_servers)
        if fewer_decoders < decoders
        else None,
        "fewer encoders": _simulated(profile, case, decoders, fewer_encoders, made.redis_servers)
        if fewer_encoders < encoders
        else None,
    }
    return {
        "name": case.name,
        "requests_per_second": case.demand.requests_per_second,
        "target_ms": case.demand.target_ms,
        "decoders": decoders,
        "encoders": encoders,
        "bound": {"decoders": made.decoders.bound, "encoders": made.encoders.bound},
        "planned_p95_ms": made.first_token_p95_ms,
        "planned_busy": made.decoder.utilisation,
        **records,
        "met": _meets(whole, case.demand),
        "not_oversized": not any(
            _suffices(some, whole, case.demand) for some in list(records.values())[1:] if some is not None
        ),
    }


def _simulated(profile: Profile, case: Case, decoders: int, encoders: int, redis: int) -> dict[str, Any]:
    requests = min(_MOST_REQUESTS, max(_LEAST_REQUESTS, _EACH * (decoders + encoders)))
    run = Run(
        requests=requests, redis_servers=redis, clients=case.clients, known=min(_MOST_KNOWN, _KNOWN_EACH * decoders), seed=_SEED
    )
    return {"decoders": decoders, "encoders": encoders, **figures(simulate(profile, case.demand, decoders, encoders, run))}


def _suffices(fewer: dict[str, Any], whole: dict[str, Any], demand: Demand) -> bool:
    """The goal is met also with fewer, without the queues that come before it is missed."""
    return _meets(fewer, demand) and fewer["first_token_ms"]["p95"] < _QUEUES * whole["first_token_ms"]["p95"]


def _meets(found: dict[str, Any], demand: Demand) -> bool:
    return set(found["ends"]) == {"answered"} and found["first_token_ms"]["p95"] <= demand.target_ms
