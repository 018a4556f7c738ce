"""Runs each scenario through the services and through the simulation.

The machine is not equally fast all the time, nor are its two cores. A fixed round of questions, and one of images, which are no
part of any load, are asked before and after each one; the profile's durations, of the decoders and of everything else, are
multiplied by how long they take now over how long they took when the profile was measured. Where two rounds differ by more than
a tenth, or other processes had more than a tenth of the two cores during the load, it is repeated with other images, whatever
its outcome was; twice at most.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.capacity.measuring.probe import Speed, probe
from bench.capacity.measuring.questions import SIDE_PIXELS, picture
from bench.capacity.profile import Profile
from bench.capacity.services import Services, services
from bench.capacity.simulation.world import Deployment, World
from bench.capacity.validation.compare import compared
from bench.capacity.validation.scenarios import SCENARIOS, Scenario
from bench.capacity.validation.served import served, simulated

_IMAGES_APART = 100_000
_STEADY, _MOST_FOREIGN, _MOST_REPEATS, _REPEAT = 1.1, 0.1, 2, 20


def validate(
    profile: Profile, model: Path, folder: Path, scenarios: Sequence[Scenario], seconds: float
) -> list[dict[str, Any]]:
    """A record for each scenario: its load, how fast the machine was, and the quantities. `folder` is for logs."""
    records = []
    for replicas, some in itertools.groupby(scenarios, key=lambda scenario: scenario.replicas):
        with services(folder / f"{replicas}-of-each", model, encoders=replicas, decoders=replicas) as running:
            for scenario in some:
                unsteady: list[list[float]] = []
                while True:
                    number = SCENARIOS.index(scenario) + _REPEAT * len(unsteady)
                    record = _record(profile, running, scenario, number, seconds)
                    before, after, foreign = record["slower_before"], record["slower_after"], record["foreign_busy"]
                    steady = is_steady(before, after, foreign)
                    if steady or len(unsteady) == _MOST_REPEATS:
                        break
                    unsteady.append([*before, *after, foreign])
                    print(f"{scenario.name}: {before} and {after} times as long, {foreign:.0%} by others; again", flush=True)
                records.append(record | {"steady": steady, "unsteady": unsteady})
                _print(records[-1])
    return records


def is_steady(before: Sequence[float], after: Sequence[float], foreign_busy: float) -> bool:
    """Whether both cores were as fast before a load as after it, within a tenth, and others had no more than a tenth of it."""
    even = all(max(pair) <= _STEADY * min(pair) for pair in zip(before, after, strict=True))
    return even and foreign_busy <= _MOST_FOREIGN


def _slower(profile: Profile, speed: Speed) -> tuple[float, float]:
    """How many times as long as when the profile was measured: the decoders' core, the other one."""
    if profile.probe_ms is None or profile.others_probe_ms is None:
        raise ValueError("the profile was not measured on this machine: it has no probe_ms or others_probe_ms")
    return round(speed.decoders_ms / profile.probe_ms, 3), round(speed.others_ms / profile.others_probe_ms, 3)


def _record(profile: Profile, running: Services, scenario: Scenario, number: int, seconds: float) -> dict[str, Any]:
    before = _slower(profile, asyncio.run(probe(running)))
    asks = scenario.asks(profile.scaled(*before), seconds, seed=number)
    images = [
        picture(number * _IMAGES_APART + image) for image in range(1 + max(image for ask in asks for image in ask.images))
    ]
    real = asyncio.run(served(running, asks, images, scenario.known))
    after = _slower(profile, asyncio.run(probe(running)))
    scaled = profile.scaled(*(fmean(pair) for pair in zip(before, after, strict=True)))
    deployment = Deployment(
        decoders=scenario.replicas,
        encoders=scenario.replicas,
        pixels=SIDE_PIXELS**2,
        on_two_cores=True,
        addresses=running.addresses,
        digests=[sha256(image).digest() for image in images],
    )
    world = World(scaled, deployment, seed=number)
    world.warm(range(scenario.known))
    result = world.run(asks)
    told = simulated(result)
    return {
        **asdict(scenario),
        "requests": len(asks),
        "per_second": round(len(asks) / (asks[-1].at_s - asks[0].at_s), 3),
        "slower_before": before,
        "slower_after": after,
        "foreign_busy": round(real.foreign_busy, 3),
        "busy": {
            side: {"decoders": round(seen.decoders_busy, 3), "others": round(seen.others_busy, 3)}
            for side, seen in (("served", real), ("simulated", told))
        },
        "passes": {"served": real.passes, "simulated": told.passes},
        "first_by_place_ms": {"served": real.first_by_place_ms, "simulated": told.first_by_place_ms},
        "raw": {"served_first_ms": real.first_ms, "simulated_first_ms": told.first_ms},
        "quantities": [each.to_json() for each in compared(real, told)],
    }


def _print(record: dict[str, Any]) -> None:
    print(
        f"{record['name']}: {record['requests']} requests, {record['per_second']} a second; the machine (decoders' core, the "
        f"other) took {record['slower_before']} and {record['slower_after']} times as long as when the profile was measured"
        f", and others had {record['foreign_busy']:.0%} of it{'' if record['steady'] else ' (not steady)'}"
    )
    for side, by_place in record["first_by_place_ms"].items():
        print(f"  {side}, first token by place, mean, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in by_place.items()))
    for side, busy in record["busy"].items():
        print(f"  {side}, busy: decoders' core {busy['decoders']}, the other {busy['others']}; passes {record['passes'][side]}")
    for each in record["quantities"]:
        verdict = "ok   " if each["met"] else "APART"
        print(
            f"  {verdict} {each['name']:24} {each['served']:10.2f} {each['simulated']:10.2f} {each['ratio']:6.2f}", flush=True
        )


def apart(records: Sequence[dict[str, Any]]) -> int:
    """Quantities that are not within 15 %."""
    return sum(not each["met"] for record in records for each in record["quantities"])
