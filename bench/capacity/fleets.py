"""A planned deployment, simulated: what the plan promised against what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.capacity.demand import Demand
from bench.capacity.profile import Profile
from bench.capacity.simulation.asks import Stream
from bench.capacity.simulation.world import Change, Deployment, Limit, Simulated, World

_WARM_SHARE = 0.2  # of the requests, before figures are taken
MOST_KNOWN = 20_000


@dataclass(frozen=True, slots=True)
class Run:
    """How a load is simulated beside what the demand says."""

    requests: int
    clients: int
    zipf: float = 0.0
    known: int = 1000
    geometric: bool = False
    seed: int = 0
    redis_bytes: float | None = None
    redis_servers: int = 1
    changes: Sequence[Change] = ()


def simulate(profile: Profile, demand: Demand, decoders: int, encoders: int, run: Run, limit: Limit | None = None) -> Simulated:
    """Known images are in Redis and with their decoders from the beginning. Raises NotMeasured, ValueError, or TooLate."""
    deployment = Deployment(
        decoders=decoders,
        encoders=encoders,
        pixels=demand.pixels,
        clients=run.clients,
        ttl_s=demand.ttl_s,
        redis_bytes=run.redis_bytes,
        redis_servers=run.redis_servers,
        changes=run.changes,
    )
    stream = Stream(
        per_second=demand.requests_per_second,
        count=run.requests,
        repeat_rate=demand.repeat_rate,
        known=run.known,
        zipf=run.zipf,
        images=demand.images,
        question_rows=demand.question_tokens,
        answer_tokens=demand.answer_tokens,
        geometric=run.geometric,
        clients=run.clients,
    )
    world = World(demand.fitted(profile), deployment, seed=run.seed)
    world.warm(range(run.known))
    return world.run(stream.asks(run.seed), limit)


def figures(result: Simulated) -> dict[str, Any]:
    """The first fifth of the requests fills queues and is left out of times."""
    warm = result.outcomes[round(_WARM_SHARE * len(result.outcomes)) :]
    answered = [outcome for outcome in warm if outcome.status == "answered"]
    first = [outcome.first_token_ms for outcome in answered]
    queued = [
        (outcome.started_s - outcome.resolved_s) * 1e3 for outcome in answered if outcome.started_s and outcome.resolved_s
    ]
    asked = [outcome for outcome in result.outcomes if outcome.first_s is not None]
    last_s = max(outcome.ask.at_s for outcome in result.outcomes)
    places = Counter(place for outcome in result.outcomes for place in outcome.places)
    return {
        "requests": len(result.outcomes),
        "ends": dict(Counter(outcome.status for outcome in result.outcomes)),
        "answers_per_second": len(asked) / result.seconds,
        "asked_per_second": len(result.outcomes) / last_s if last_s else 0.0,
        "first_token_ms": _quantiles(first),
        "grows": _grows(first),
        "queue_ms": _quantiles(queued),
        "whole_answer_ms": _quantiles([(outcome.end_s - outcome.ask.at_s) * 1e3 for outcome in answered]),
        "places": {place: count / max(1, sum(places.values())) for place, count in sorted(places.items())},
        "hot_prompts": result.hot_prompts / max(1, result.prompts),
        "images_a_pass": result.images_encoded / max(1, result.passes),
        "busy": {kind: {"mean": mean, "largest": largest} for kind, (mean, largest) in result.busy.items()},
        "redis_entries": result.redis_entries,
        "redis_evicted": result.redis_evicted,
        "simulated_s": result.seconds,
        "ran_s": result.ran_s,
        "events": result.events,
    }


def _grows(first_ms: Sequence[float]) -> float:
    """How many times as late first tokens come in the last quarter of the time as in the second one."""
    quarter = len(first_ms) // 4
    return float(np.mean(first_ms[-quarter:]) / np.mean(first_ms[quarter : 2 * quarter])) if quarter else 1.0


def _quantiles(values: Sequence[float]) -> Mapping[str, float]:
    if not values:
        return {}
    quantiles = {name: float(np.quantile(values, at)) for name, at in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {"mean": float(np.mean(values)), **quantiles}
