"""A rolling restart: two of everything, ended in order and started again one after the other, while clients ask by the SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.faults.album import questions
from tests.faults.askers import Askers, undisturbed_answers
from tests.faults.outcome import Outcome
from tests.faults.row import Row
from tests.support.redis_server import free_port
from tests.support.redis_topologies import WatchedRedis
from tests.support.service_process import ServiceProcess
from tests.support.until import until

NAME = "rolling_restart"
WITHIN_SECONDS = 120.0
_REPLICAS = ("1", "2")


@dataclass(slots=True)
class Fleet:
    """By name: `encoder-1`, …"""

    services: Mapping[str, ServiceProcess]
    redis: WatchedRedis

    @property
    def decoders(self) -> list[str]:
        """Their addresses."""
        return [service.address for name, service in self.services.items() if name.startswith("decoder")]


async def run_rolling_restart(folder: Path, report: Callable[[Row], None]) -> list[Row]:
    """A row for each restart. None of them may fail a single request; each has all that ended since the one before."""
    counted_from: list[int] = []
    restarts: list[Callable[[Sequence[Outcome]], Row]] = []
    async with fleet(folder) as running:
        asked = questions()
        undisturbed = await undisturbed_answers(running.decoders[0], asked)
        async with Askers(running.decoders, asked, undisturbed, plain=0) as askers:
            for component in (*running.services, "redis"):
                counted_from.append(len(askers.outcomes))
                restarts.append(await _restarted(component, running, askers))
    bounds = pairwise([*counted_from, len(askers.outcomes)])
    rows = [restart(askers.outcomes[begin:end]) for restart, (begin, end) in zip(restarts, bounds, strict=True)]
    for row in rows:
        report(row)
    return rows


async def _restarted(component: str, running: Fleet, askers: Askers) -> Callable[[Sequence[Outcome]], Row]:
    """What makes a row of it and of what became of the requests."""
    if await askers.all_answered_since(time.monotonic(), WITHIN_SECONDS) is None:
        raise RuntimeError(f"not every client was answered before {component} was restarted")
    began_s = time.monotonic()
    signs = await (_fail_over(running.redis) if component == "redis" else _restart(running.services[component]))
    recovery_s = await askers.all_answered_since(time.monotonic(), WITHIN_SECONDS)
    return partial(
        Row.of,
        NAME,
        component,
        recovery_s=recovery_s,
        signs=signs,
        errors_allowed=False,
        took_s=round(time.monotonic() - began_s, 1),
    )


async def _restart(service: ServiceProcess) -> dict[str, float]:
    before = service.pid
    code = await asyncio.to_thread(service.stop)
    service.launch()
    await asyncio.to_thread(service.wait_ready)
    return {"ended_in_order": float(code == 0), "another_process": float(service.pid != before)}


async def _fail_over(redis: WatchedRedis) -> dict[str, float]:
    await asyncio.to_thread(redis.master.stop)
    await until(lambda: asyncio.to_thread(redis.promoted), what="the replica is the master")
    await asyncio.to_thread(redis.master.start)
    return {"promoted": float(await asyncio.to_thread(redis.promoted))}


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Two encoders, two decoders, and a Redis with a replica that a Sentinel watches."""
    async with AsyncExitStack() as stack:
        redis = WatchedRedis(folder)
        stack.callback(redis.stop)
        await asyncio.to_thread(redis.start)
        shared = {
            "redis_url": redis.url,
            "cache_allow_unsigned": True,
            "cache_ttl_seconds": 1,
            "cache_memory_bytes": 0,
            "torch_threads": 1,
            "log_format": "json",
        }
        encoder_ports = [free_port() for _ in _REPLICAS]
        encoders = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in encoder_ports)
        services: dict[str, ServiceProcess] = {}
        for kind, ports, more in (
            ("encoder", encoder_ports, {}),
            ("decoder", [free_port() for _ in _REPLICAS], {"encoder_address": encoders}),
        ):
            for replica, port in zip(_REPLICAS, ports, strict=True):
                own = folder / f"{kind}-{replica}"
                own.mkdir()
                service = services[own.name] = ServiceProcess(kind, own, shared | more)
                service.address = f"127.0.0.1:{port}"
                stack.push_async_callback(asyncio.to_thread, service.stop)
                service.launch()
        for service in services.values():
            await asyncio.to_thread(service.wait_ready)
        yield Fleet(services, redis)
