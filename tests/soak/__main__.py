"""`python -m tests.soak --seconds 600 --json FILE`, which is `make soak`: exit 1 if anything leaked or drifted."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.harness import Check, environment
from tests.soak.traffic import Caller, Done
from tests.soak.verdict import REDIS_CONNECTIONS, by_kind, checks, latency_drift, left_over, memory_growth, warm_at
from tests.soak.watch import HELD_FOR_SOMEBODY, Bounds, Held, Watch
from tests.support.redis_server import RedisServer, free_port
from tests.support.stack import process_stack

BOUNDS = Bounds(encoder_cache_bytes=2**20, decoder_cache_bytes=2**20, redis_bytes=4 * 2**20)
_KV_BYTES = 16 * 2**20
# oneDNN keeps what it made for each shape that it met, 1024 of them by default: more than a run of ten minutes meets, at about
# a tenth of a megabyte each. Small, it is full within seconds like the other caches, and what grows then is a leak.
_SMALL_LIBRARY_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
_IDLE_SECONDS = 60.0
_EVERY_SECONDS = 1.0
_KEPT_SAMPLES = 120


@dataclass(slots=True)
class Soak:
    """One run."""

    samples: list[Held] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    before: Held = field(default_factory=dict)
    after: Held = field(default_factory=dict)

    def has_settled(self, held: Held) -> bool:
        """Whether nothing is left over; gauges are up to a second old."""
        return all(check.met for check in left_over(self.before, held))

    def checks(self) -> list[Check]:
        """What it showed."""
        return list(checks(self.samples, self.before, self.after, self.done, BOUNDS))

    def summary(self) -> dict[str, Any]:
        """Figures, also those that a short run is not judged by."""
        warm = warm_at(self.samples, BOUNDS)
        since = self.samples[warm or 0 :]
        return {
            "requests": len(self.done),
            "warm_after_s": None if warm is None else round(self.samples[warm]["at_s"] - self.samples[0]["at_s"], 1),
            "memory_growth": {
                each: round(memory_growth(since, f"{each} rss_anon_bytes"), 4) for each in ("encoder", "decoder")
            },
            "latency_drift": round(latency_drift(self.done), 3),
            "kinds": by_kind(self.done),
        }


async def run(seconds: float, clients: int) -> Soak:
    """Asks for so long, then waits until all is idle."""
    soak = Soak()
    ports = {kind: free_port() for kind in ("encoder", "decoder")}
    serve = {kind: {"metrics_bind": f"127.0.0.1:{port}"} for kind, port in ports.items()}
    small = {"cache_memory_bytes": BOUNDS.encoder_cache_bytes, "redis_connections": REDIS_CONNECTIONS}
    of_decoder = small | serve["decoder"] | {"max_queue": 6, "kv_cache_bytes": _KV_BYTES, "max_constraints_remembered": 4}
    bounded = ["--maxmemory", str(BOUNDS.redis_bytes), "--maxmemory-policy", "allkeys-lru"]
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(options=bounded) as redis,
        process_stack(
            Path(folder),
            redis=redis,
            encoder=small | serve["encoder"],
            decoder=of_decoder,
            environment=_SMALL_LIBRARY_CACHES,
        ) as stack,
    ):
        watch = Watch(stack.encoder, stack.decoder, redis, ports)
        await _ask_all_kinds(stack.decoder_address)
        soak.before = await watch.until(_is_idle, _IDLE_SECONDS)
        until_s = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(_go_on(Caller(stack.decoder_address, number), until_s, soak.done))
            group.create_task(_watch(watch, until_s, soak.samples))
        soak.after = await watch.until(soak.has_settled, _IDLE_SECONDS)
    return soak


def _is_idle(held: Held) -> bool:
    return not any(held[name] for name in HELD_FOR_SOMEBODY)


async def _ask_all_kinds(server: str) -> None:
    """So that what is made at its first use is there before anything is counted."""
    caller = Caller(server, 0)
    for _ in range(100):
        await caller.once()
    await caller.aclose()


async def _go_on(caller: Caller, until_s: float, done: list[Done]) -> None:
    while time.monotonic() < until_s:
        done.append(await caller.once())
    await caller.aclose()


async def _watch(watch: Watch, until_s: float, samples: list[Held]) -> None:
    while time.monotonic() < until_s:
        samples.append(await watch.look())
        await asyncio.sleep(_EVERY_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to ask (600)")
    parser.add_argument("--clients", type=int, default=24, help="how many ask at once (24)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    options = parser.parse_args(arguments)
    soak = asyncio.run(run(options.seconds, options.clients))
    found, summary = soak.checks(), soak.summary()
    for check in found:
        print(f"{'met' if check.met else 'NOT MET':8}{check.name}: {check.value:g} {check.op} {check.goal:g}")
    print(json.dumps(summary, indent=1))
    if options.json is not None:
        report = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "seconds": options.seconds,
            "clients": options.clients,
            "checks": [check.to_json() for check in found],
            "summary": summary,
            "idle_before": soak.before,
            "idle_after": soak.after,
            "samples": soak.samples[:: max(1, len(soak.samples) // _KEPT_SAMPLES)],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(check.met for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
