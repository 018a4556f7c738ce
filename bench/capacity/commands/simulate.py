"""`simulate`: a load through a simulated deployment."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bench.capacity.commands.demands import demand_of, demand_options
from bench.capacity.fleets import MOST_KNOWN, Run, figures, simulate
from bench.capacity.simulation.world import Change

MOST_REPLICAS = 10_000


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    demand_options(parser)
    parser.add_argument("--decoders", type=int, required=True)
    parser.add_argument("--encoders", type=int, required=True)
    parser.add_argument("--requests", type=int, default=20_000, help="that are simulated, at most a million")
    parser.add_argument("--clients", type=int, default=16, help="programs that ask, each with its own SDK")
    parser.add_argument("--known-images", type=int, default=1000, help="that were asked about before, and may be again")
    parser.add_argument("--zipf", type=float, default=0.0, help="popularity 1 / rank ** ZIPF of those; 0: all alike")
    parser.add_argument("--varied-answers", action="store_true", help="lengths of answers are geometric, not all the same")
    parser.add_argument("--redis-servers", type=int, default=1, help="over which keys are spread")
    parser.add_argument("--redis-bytes", type=float, help="its maxmemory; unset: no bound")
    parser.add_argument(
        "--change",
        action="append",
        default=[],
        help="SECONDS:decoder:+2 or SECONDS:encoder:-1: replicas that come or are killed",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(arguments: argparse.Namespace) -> int:
    """Simulate a load: times to the first token, queues, hits, and how busy replicas are."""
    profile, demand = demand_of(arguments)
    for name in ("decoders", "encoders", "clients", "redis_servers", "requests"):
        if not 1 <= getattr(arguments, name) <= (1_000_000 if name == "requests" else MOST_REPLICAS):
            raise ValueError(f"--{name.replace('_', '-')}: {getattr(arguments, name)} is not simulated")
    if not 0 <= arguments.known_images <= MOST_KNOWN:
        raise ValueError(f"--known-images: 0 to {MOST_KNOWN}, not {arguments.known_images}")
    if arguments.zipf < 0:
        raise ValueError(f"--zipf: at least 0, not {arguments.zipf:g}")
    how = Run(
        requests=arguments.requests,
        clients=arguments.clients,
        zipf=arguments.zipf,
        known=arguments.known_images,
        geometric=arguments.varied_answers,
        seed=arguments.seed,
        redis_bytes=arguments.redis_bytes,
        redis_servers=arguments.redis_servers,
        changes=[change_of(text) for text in arguments.change],
    )
    found = figures(simulate(profile, demand, arguments.decoders, arguments.encoders, how))
    print(json.dumps(found, indent=1))
    if arguments.json:
        record = {"profile": profile.model_dump(), "demand": asdict(demand), "run": asdict(how), "figures": found}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def change_of(text: str) -> Change:
    """Of "30:decoder:-1". Raises ValueError."""
    try:
        at, kind, count = text.split(":")
        change = Change(float(at), kind, int(count))
    except ValueError:
        raise ValueError(f"--change: SECONDS:decoder:+2 or SECONDS:encoder:-1, not {text}") from None
    if kind not in ("decoder", "encoder") or change.at_s < 0 or not change.count:
        raise ValueError(f"--change: SECONDS:decoder:+2 or SECONDS:encoder:-1, not {text}")
    return change
