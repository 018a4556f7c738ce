"""`plan`: replicas, memory and network for a load."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from math import ceil
from pathlib import Path

from bench.capacity.commands.demands import demand_of, demand_options
from bench.capacity.curve import NotMeasured
from bench.capacity.planning.plan import Kind, Plan, plan

_MEBI, _GIBI = 1 << 20, 1 << 30


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    demand_options(parser)
    parser.add_argument("--json", type=Path, help="write the plan here")


def run(arguments: argparse.Namespace) -> int:
    """Plan replicas of each kind, Redis' memory and the network for a load."""
    profile, demand = demand_of(arguments)
    try:
        made = plan(profile, demand)
    except NotMeasured as error:
        if not (lacking := ", ".join(profile.missing())):
            raise  # a size beyond what was measured: nothing that could be assumed
        raise NotMeasured(f"{error}. The profile lacks: {lacking} (--assume NAME=VALUE)") from error
    print(f"{profile.model} on {profile.device}")
    for text in arguments.assume:
        print(f"assumed, not measured: {text}")
    for line in lines(made):
        print(line)
    if arguments.json:
        record = {"profile": profile.model_dump(), "demand": asdict(demand), "plan": asdict(made)}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def lines(made: Plan) -> Iterator[str]:
    """The plan as a table."""
    yield _row("encoders", made.encoders, made.encoder.utilisation, f"{made.encoder.batch:.1f} images a pass")
    running = f"{made.decoder.answers:.1f} answers under way, {made.decoder.step_ms:.1f} ms a token"
    yield _row("decoders", made.decoders, made.decoder.utilisation, running)
    yield f"first token, p95       {made.first_token_p95_ms:10.0f} ms, with the spare replicas away"
    yield f"KV memory of a decoder {made.kv_bytes / _MEBI:10.0f} MiB for answers under way; more keeps prefixes"
    redis = f"{made.redis_images:,.0f} images, {made.redis_busy:.1%} of one core: {made.redis_servers} server(s)"
    yield f"Redis memory           {made.redis_bytes / _GIBI:10.2f} GiB for {redis}"
    yield f"maxmemory of a server  {ceil(made.redis_maxmemory / _MEBI):10} MiB, a quarter more than its entries; allkeys-lfu"
    yield f"decoders' memory tier  {made.memory_share:10.0%} of repeated images, if all are asked about alike"
    yield f"decoders' KV cache     {made.prefix_share:10.0%} of them with the rows of their prompts"
    for way, mbit in made.network_mbit.items():
        yield f"{way:22} {mbit:10.2f} Mbit/s"


def _row(name: str, kind: Kind, utilisation: float, rest: str) -> str:
    spare = kind.planned - kind.needed
    return f"{name:22} {kind.planned:10} of which {spare} spare; bound by {kind.bound}; {utilisation:.0%} busy, {rest}"
